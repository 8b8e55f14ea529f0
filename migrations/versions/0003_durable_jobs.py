"""Jobs survive the loss of their worker, and have lanes, priorities, events and webhooks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)
EVENT_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_STATES = ("queued", "running", "cancelling", "cancelled", "succeeded", "failed")
_NEW_STATES = ("queued", "running", "pausing", "paused", "interrupted", *_STATES[2:])
_DEFAULTS = {"lane": "cpu", "priority": "0", "max_attempts": "5", "losses": "0"}


def upgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("webhook_url", sa.Text(), nullable=True))
        batch.add_column(
            sa.Column("lane", sa.String(length=20), nullable=False, server_default="cpu")
        )
        for name in ("priority", "max_attempts", "losses"):
            default = _DEFAULTS[name]
            batch.add_column(sa.Column(name, sa.Integer(), nullable=False, server_default=default))
        batch.add_column(sa.Column("not_before", TIME, nullable=True))
        batch.add_column(sa.Column("forgotten_at", TIME, nullable=True))
        batch.drop_constraint(op.f("ck_jobs_state"), type_="check")
        batch.create_check_constraint(op.f("ck_jobs_state"), _is_one_of("state", _NEW_STATES))
        batch.create_check_constraint(
            op.f("ck_jobs_lane"), _is_one_of("lane", ("gpu-train", "gpu-infer", "cpu"))
        )
    with op.batch_alter_table("jobs") as batch:
        for name in _DEFAULTS:
            batch.alter_column(name, server_default=None)
    # Only a waiting job is announced.
    op.execute("UPDATE jobs SET announce_at = NULL WHERE state != 'queued'")
    with op.batch_alter_table("jobs") as batch:
        batch.create_index(
            "ix_jobs_waiting",
            [sa.text("priority DESC"), "created_at", "lane"],
            **_only("announce_at"),
        )
        batch.create_index("ix_jobs_held", ["lease_until"], **_only("lease_until"))
        batch.create_index(
            "ix_jobs_remembered", ["finished_at"], **_only("finished_at", without="forgotten_at")
        )

    op.create_table(
        "job_dependencies",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("needs_id", sa.Uuid(), nullable=False),
        _of_job("job_dependencies", "job_id"),
        _of_job("job_dependencies", "needs_id"),
        sa.PrimaryKeyConstraint("job_id", "needs_id", name=op.f("pk_job_dependencies")),
    )
    op.create_index("ix_job_dependencies_needs_id", "job_dependencies", ["needs_id"])
    op.create_table(
        "job_events",
        sa.Column("id", EVENT_ID, nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        _of_job("job_events", "job_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_events")),
    )
    op.create_index("ix_job_events_job_id_id", "job_events", ["job_id", "id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_digest", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        _of_job("idempotency_keys", "job_id"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("event_id", EVENT_ID, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["event_id"],
            ["job_events.id"],
            name=op.f("fk_webhook_deliveries_event_id_job_events"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index("ix_webhook_deliveries_next_at", "webhook_deliveries", ["next_at"])


def downgrade() -> None:
    for table in (
        "webhook_deliveries",
        "idempotency_keys",
        "job_events",
        "job_dependencies",
    ):
        op.drop_table(table)
    op.execute("UPDATE jobs SET state = 'queued' WHERE state IN ('paused', 'interrupted')")
    op.execute("UPDATE jobs SET state = 'running' WHERE state = 'pausing'")
    with op.batch_alter_table("jobs") as batch:
        batch.drop_index("ix_jobs_waiting")
        batch.drop_index("ix_jobs_held")
        batch.drop_index("ix_jobs_remembered")
        batch.drop_constraint(op.f("ck_jobs_lane"), type_="check")
        batch.drop_constraint(op.f("ck_jobs_state"), type_="check")
        batch.create_check_constraint(op.f("ck_jobs_state"), _is_one_of("state", _STATES))
        for name in ("not_before", "forgotten_at", *_DEFAULTS, "webhook_url"):
            batch.drop_column(name)


def _is_one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _only(column: str, without: str | None = None) -> dict[str, object]:
    also = "" if without is None else f" AND {without} IS NULL"
    where = sa.text(f"{column} IS NOT NULL{also}")
    return {"postgresql_where": where, "sqlite_where": where}


def _of_job(table: str, column: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], ["jobs.id"], name=op.f(f"fk_{table}_{column}_jobs"), ondelete="CASCADE"
    )
