"""Jobs have one more kind, the probe."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

_KINDS = (
    "adapt",
    "train-style",
    "pretrain",
    "stylefilter",
    "evaluate",
    "method",
    "benchmark",
    "register",
)


def upgrade() -> None:
    _replace_check((*_KINDS, "probe"))


def downgrade() -> None:
    """Delete the probes: the older table has no place for them."""
    op.execute("DELETE FROM jobs WHERE kind = 'probe'")
    _replace_check(_KINDS)


def _replace_check(kinds: tuple[str, ...]) -> None:
    with op.batch_alter_table("jobs") as batch:
        name = op.f("ck_jobs_kind")
        batch.drop_constraint(name, type_="check")
        listed = ", ".join(f"'{kind}'" for kind in kinds)
        batch.create_check_constraint(name, f"kind IN ({listed})")
    # On SQLite the copied table loses the DESC order of this index.
    op.drop_index("ix_jobs_waiting", table_name="jobs")
    waiting = sa.text("announce_at IS NOT NULL")
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        [sa.text("priority DESC"), "created_at", "lane"],
        postgresql_where=waiting,
        sqlite_where=waiting,
    )
