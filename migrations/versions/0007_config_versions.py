"""Jobs and models have a column for the version of the fields of their configuration."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for table in ("jobs", "trained_models"):
        op.add_column(table, sa.Column("config_version", sa.Integer(), nullable=True))


def downgrade() -> None:
    for table in ("trained_models", "jobs"):
        with op.batch_alter_table(table) as batch:
            batch.drop_column("config_version")
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
