"""Images hold points, and changes of labels count them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0016"

_INDEX = "ix_images_points"


def upgrade() -> None:
    json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    # Not in a batch, which would copy the rows of all images on SQLite.
    op.add_column("images", sa.Column("points", json, nullable=True))
    where = sa.text("points IS NOT NULL")
    op.create_index(
        _INDEX, "images", ["dataset_id", "n"], postgresql_where=where, sqlite_where=where
    )
    number = sa.Column("changed_points", sa.Integer(), nullable=False, server_default="0")
    op.add_column("label_changes", number)
    with op.batch_alter_table("label_changes") as batch:
        batch.alter_column("changed_points", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("label_changes") as batch:
        batch.drop_column("changed_points")
    op.drop_index(_INDEX, "images")
    with op.batch_alter_table("images") as batch:
        batch.drop_column("points")
