"""Datasets have versions, and labels can be taken over from the version before."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_CHANGES = ("put", "csv", "derive")


def upgrade() -> None:
    with op.batch_alter_table("datasets") as batch:
        batch.add_column(sa.Column("version", sa.Integer(), nullable=False, server_default="1"))
        batch.add_column(sa.Column("previous_id", sa.Uuid(), nullable=True))
        batch.create_foreign_key(
            op.f("fk_datasets_previous_id_datasets"), "datasets", ["previous_id"], ["id"]
        )
        batch.create_index(op.f("ix_datasets_previous_id"), ["previous_id"])
    with op.batch_alter_table("datasets") as batch:
        batch.alter_column("version", existing_type=sa.Integer(), server_default=None)
    _replace_check((*_CHANGES, "version"))


def downgrade() -> None:
    """Forget which datasets are versions of others; all of them stay."""
    op.execute("UPDATE label_changes SET kind = 'put' WHERE kind = 'version'")
    _replace_check(_CHANGES)
    with op.batch_alter_table("datasets") as batch:
        batch.drop_index(op.f("ix_datasets_previous_id"))
        batch.drop_constraint(op.f("fk_datasets_previous_id_datasets"), type_="foreignkey")
        batch.drop_column("previous_id")
        batch.drop_column("version")


def _replace_check(kinds: tuple[str, ...]) -> None:
    with op.batch_alter_table("label_changes") as batch:
        name = op.f("ck_label_changes_kind")
        batch.drop_constraint(name, type_="check")
        listed = ", ".join(f"'{kind}'" for kind in kinds)
        batch.create_check_constraint(name, f"kind IN ({listed})")
