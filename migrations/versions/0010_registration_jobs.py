"""Registrations are jobs, in a lane of their own; a key may stand for a dataset without a job."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_KINDS = (
    "adapt",
    "train-style",
    "pretrain",
    "stylefilter",
    "evaluate",
    "method",
    "benchmark",
)
_LANES = ("gpu-train", "gpu-infer", "cpu")


def upgrade() -> None:
    _replace_checks((*_KINDS, "register"), (*_LANES, "data"))
    with op.batch_alter_table("idempotency_keys") as batch:
        batch.alter_column("job_id", existing_type=sa.Uuid(), nullable=True)
        batch.add_column(sa.Column("dataset_id", sa.Uuid(), nullable=True))
        batch.create_foreign_key(
            op.f("fk_idempotency_keys_dataset_id_datasets"),
            "datasets",
            ["dataset_id"],
            ["id"],
            ondelete="CASCADE",
        )


def downgrade() -> None:
    """Delete registrations and the keys of datasets: the older tables have no place for them."""
    op.execute("DELETE FROM idempotency_keys WHERE job_id IS NULL")
    op.execute("DELETE FROM jobs WHERE kind = 'register'")
    with op.batch_alter_table("idempotency_keys") as batch:
        batch.drop_constraint(op.f("fk_idempotency_keys_dataset_id_datasets"), type_="foreignkey")
        batch.drop_column("dataset_id")
        batch.alter_column("job_id", existing_type=sa.Uuid(), nullable=False)
    _replace_checks(_KINDS, _LANES)


def _replace_checks(kinds: tuple[str, ...], lanes: tuple[str, ...]) -> None:
    with op.batch_alter_table("jobs") as batch:
        for column, values in (("kind", kinds), ("lane", lanes)):
            name = op.f(f"ck_jobs_{column}")
            batch.drop_constraint(name, type_="check")
            listed = ", ".join(f"'{value}'" for value in values)
            batch.create_check_constraint(name, f"{column} IN ({listed})")
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
