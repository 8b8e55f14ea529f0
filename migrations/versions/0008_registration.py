"""Datasets keep what was read and found at registration, and can be hidden while they are written.

The sums of the class pixels of each section are computed from the rows of the images.
"""

import hashlib
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")

_DATASETS = sa.table(
    "datasets",
    sa.column("id", sa.Uuid()),
    sa.column("name", sa.String()),
    sa.column("digest", sa.String()),
    sa.column("class_names", JSON),
    sa.column("num_sections", sa.Integer()),
    sa.column("created_at"),
    sa.column("deleted_at"),
    sa.column("identity", sa.String()),
    sa.column("section_pixels", JSON),
)
_IMAGES = sa.table(
    "images",
    sa.column("dataset_id", sa.Uuid()),
    sa.column("n", sa.Integer()),
    sa.column("section", sa.Integer()),
    sa.column("class_pixels", JSON),
)
_ROWS_AT_A_TIME = 10_000


def upgrade() -> None:
    with op.batch_alter_table("datasets") as batch:
        batch.add_column(
            sa.Column("pixel_size_from", sa.String(10), nullable=False, server_default="request")
        )
        batch.add_column(sa.Column("pixels_digest", sa.String(64), nullable=True))
        batch.add_column(sa.Column("identity", sa.String(64), nullable=True))
        for name in ("section_pixels", "notes"):
            batch.add_column(sa.Column(name, JSON, nullable=False, server_default="[]"))
        batch.add_column(sa.Column("histogram", sa.LargeBinary(), nullable=True))
        batch.add_column(sa.Column("description", JSON, nullable=True))
        batch.add_column(
            sa.Column("hidden", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    with op.batch_alter_table("datasets") as batch:
        for name in ("pixel_size_from", "section_pixels", "notes", "hidden"):
            batch.alter_column(name, server_default=None)
        batch.create_unique_constraint(op.f("uq_datasets_identity"), ["identity"])
        batch.create_index(op.f("ix_datasets_pixels_digest"), ["pixels_digest"])
    _fill()


def downgrade() -> None:
    with op.batch_alter_table("datasets") as batch:
        batch.drop_index(op.f("ix_datasets_pixels_digest"))
        batch.drop_constraint(op.f("uq_datasets_identity"), type_="unique")
        for name in (
            "pixel_size_from",
            "pixels_digest",
            "identity",
            "section_pixels",
            "notes",
            "histogram",
            "description",
            "hidden",
        ):
            batch.drop_column(name)


def _fill() -> None:
    """Give each dataset its sums, and the first of equal datasets the identity."""
    connection, known = op.get_bind(), set()
    query = sa.select(_DATASETS).order_by(_DATASETS.c.created_at, _DATASETS.c.id)
    for dataset in connection.execute(query).all():
        identity = hashlib.sha256(f"{dataset.name}\n{dataset.digest}".encode()).hexdigest()
        first = dataset.deleted_at is None and identity not in known
        values: dict[str, Any] = {"section_pixels": _sums(dataset)}
        if first:
            known.add(identity)
            values["identity"] = identity
        connection.execute(sa.update(_DATASETS).where(_DATASETS.c.id == dataset.id).values(values))


def _sums(dataset: Any) -> list[list[int] | None]:
    """Return the pixels of each class in each section; None where there is no number for each."""
    sums: list[list[int] | None] = [None] * dataset.num_sections
    num_classes = len(dataset.class_names) if isinstance(dataset.class_names, list) else 0
    columns, after = (_IMAGES.c.n, _IMAGES.c.section, _IMAGES.c.class_pixels), -1
    while True:
        query = sa.select(*columns).where(_IMAGES.c.dataset_id == dataset.id, _IMAGES.c.n > after)
        rows = op.get_bind().execute(query.order_by(_IMAGES.c.n).limit(_ROWS_AT_A_TIME)).all()
        for _, section, counts in rows:
            if not _usable(counts, num_classes) or not 0 <= section < len(sums):
                continue
            earlier = sums[section] or [0] * num_classes
            sums[section] = [a + b for a, b in zip(earlier, counts, strict=True)]
        if len(rows) < _ROWS_AT_A_TIME:
            return sums
        after = rows[-1].n


def _usable(counts: Any, num_classes: int) -> bool:
    return (
        isinstance(counts, list)
        and len(counts) == num_classes
        and all(isinstance(count, int) for count in counts)
    )
