"""Columns and plans take today's names: attempt, lost_attempts, and the folds of a benchmark."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")

_JOBS = sa.table("jobs", sa.column("id", sa.Uuid()), sa.column("plan", JSON))


def upgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.alter_column("fence", new_column_name="attempt")
        batch.alter_column("losses", new_column_name="lost_attempts")
    _in_order()
    _rewrite_plans(_with_folds)


def downgrade() -> None:
    _rewrite_plans(_with_splits)
    with op.batch_alter_table("jobs") as batch:
        batch.alter_column("attempt", new_column_name="fence")
        batch.alter_column("lost_attempts", new_column_name="losses")
    _in_order()


def _in_order() -> None:
    """Create the index of waiting jobs again: on SQLite the copied table loses its DESC order."""
    op.drop_index("ix_jobs_waiting", table_name="jobs")
    waiting = sa.text("announce_at IS NOT NULL")
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        [sa.text("priority DESC"), "created_at", "lane"],
        postgresql_where=waiting,
        sqlite_where=waiting,
    )


def _rewrite_plans(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Rewrite the plans of benchmark parts; the plan of a benchmark itself keeps its names."""
    connection = op.get_bind()
    query = sa.select(_JOBS.c.id, _JOBS.c.plan).where(_JOBS.c.plan.is_not(None))
    for job_id, plan in connection.execute(query).all():
        # A column may hold JSON's null, which SQL does not take for NULL.
        if plan is not None and "folds" not in plan:
            statement = sa.update(_JOBS).where(_JOBS.c.id == job_id)
            connection.execute(statement.values(plan=change(plan)))


def _with_folds(plan: dict[str, Any]) -> dict[str, Any]:
    return {
        "fold": plan["split"],
        "sections": plan["fold"],
        **{name: value for name, value in plan.items() if name not in ("split", "fold")},
    }


def _with_splits(plan: dict[str, Any]) -> dict[str, Any]:
    return {
        "split": plan["fold"],
        "fold": plan["sections"],
        **{name: value for name, value in plan.items() if name not in ("fold", "sections")},
    }
