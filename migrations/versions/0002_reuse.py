"""A job may take over trained models: models have a fingerprint, and jobs may refuse reuse."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("trained_models") as batch:
        batch.add_column(sa.Column("fingerprint", sa.String(length=64), nullable=True))
        batch.create_index(op.f("ix_trained_models_fingerprint"), ["fingerprint"])
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("reuse", sa.Boolean(), nullable=False, server_default=sa.true()))
    with op.batch_alter_table("jobs") as batch:
        batch.alter_column("reuse", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.drop_column("reuse")
    with op.batch_alter_table("trained_models") as batch:
        batch.drop_index(op.f("ix_trained_models_fingerprint"))
        batch.drop_column("fingerprint")
