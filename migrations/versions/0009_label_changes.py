"""A table keeps the changes of labels: who made each, when and how."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "label_changes",
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("by", sa.String(length=200), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("changed_images", sa.Integer(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('put', 'csv', 'derive')", name=op.f("ck_label_changes_kind")),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_label_changes_dataset_id_datasets")
        ),
        sa.PrimaryKeyConstraint("dataset_id", "version", name=op.f("pk_label_changes")),
    )


def downgrade() -> None:
    op.drop_table("label_changes")
