"""Benchmarks are added: jobs have parts, and a job may wait for another's end, however it ends."""

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
_JOBS = ("adapt", "train-style", "pretrain", "stylefilter", "evaluate")
_MODELS = ("style", "segmenter", "stylefilter")


def upgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("parent_id", sa.Uuid(), nullable=True))
        batch.add_column(sa.Column("plan", JSON, nullable=True))
        batch.create_foreign_key(
            op.f("fk_jobs_parent_id_jobs"), "jobs", ["parent_id"], ["id"], ondelete="CASCADE"
        )
        batch.create_index(op.f("ix_jobs_parent_id"), ["parent_id"])
        _replace(batch, "jobs", (*_JOBS, "method", "benchmark"))
    _in_order()
    with op.batch_alter_table("trained_models") as batch:
        _replace(batch, "trained_models", (*_MODELS, "baseline"))
    with op.batch_alter_table("job_dependencies") as batch:
        batch.add_column(
            sa.Column("success", sa.Boolean(), nullable=False, server_default=sa.true())
        )
    with op.batch_alter_table("job_dependencies") as batch:
        batch.alter_column("success", server_default=None)


def downgrade() -> None:
    """Delete benchmarks, their parts and the models of these parts, and restore the tables.

    The older tables have no place for them.
    """
    gone = "SELECT id FROM jobs WHERE kind IN ('benchmark', 'method')"
    theirs = f"SELECT id FROM trained_models WHERE job_id IN ({gone})"
    for column in ("style_model_id", "segmenter_model_id"):
        op.execute(f"UPDATE trained_models SET {column} = NULL WHERE {column} IN ({theirs})")
    op.execute(f"DELETE FROM trained_models WHERE job_id IN ({gone})")
    op.execute("UPDATE jobs SET parent_id = NULL")
    op.execute(f"DELETE FROM jobs WHERE id IN ({gone})")
    with op.batch_alter_table("job_dependencies") as batch:
        batch.drop_column("success")
    with op.batch_alter_table("trained_models") as batch:
        _replace(batch, "trained_models", _MODELS)
    with op.batch_alter_table("jobs") as batch:
        _replace(batch, "jobs", _JOBS)
        batch.drop_index(op.f("ix_jobs_parent_id"))
        batch.drop_constraint(op.f("fk_jobs_parent_id_jobs"), type_="foreignkey")
        batch.drop_column("plan")
        batch.drop_column("parent_id")
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


def _replace(batch: BatchOperations, table: str, values: tuple[str, ...]) -> None:
    """Replace the check of the column ``kind``."""
    name = op.f(f"ck_{table}_kind")
    batch.drop_constraint(name, type_="check")
    listed = ", ".join(f"'{value}'" for value in values)
    batch.create_check_constraint(name, f"kind IN ({listed})")
