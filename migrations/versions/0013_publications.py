"""Results of jobs are published: copied to an address."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "publications",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["jobs.id"],
            name=op.f("fk_publications_job_id_jobs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_publications")),
    )
    waits = sa.text("next_at IS NOT NULL")
    op.create_index(
        "ix_publications_waiting",
        "publications",
        ["next_at"],
        postgresql_where=waits,
        sqlite_where=waits,
    )


def downgrade() -> None:
    """Forget where results were copied to; the copies stay."""
    op.drop_table("publications")
