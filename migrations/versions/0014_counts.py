"""Datasets keep how many images a section has and a class lacks; changes of labels keep counts.

Without them, each of these numbers is counted from the rows of all images. The numbers of datasets
are filled in here; the labels of a dataset are counted when they change next.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")

_COLUMNS = ("section_images", "images_without")
_ROWS_AT_A_TIME = 10_000

_DATASETS = sa.table(
    "datasets",
    sa.column("id", sa.Uuid()),
    sa.column("class_names", JSON),
    sa.column("num_sections", sa.Integer()),
    *(sa.column(name, JSON) for name in _COLUMNS),
)
_IMAGES = sa.table(
    "images",
    sa.column("dataset_id", sa.Uuid()),
    sa.column("n", sa.Integer()),
    sa.column("section", sa.Integer()),
    sa.column("class_pixels", JSON),
)


def upgrade() -> None:
    with op.batch_alter_table("datasets") as batch:
        for name in _COLUMNS:
            batch.add_column(sa.Column(name, JSON, nullable=False, server_default="[]"))
    with op.batch_alter_table("datasets") as batch:
        for name in _COLUMNS:
            batch.alter_column(name, server_default=None)
    with op.batch_alter_table("label_changes") as batch:
        batch.add_column(sa.Column("counts", JSON, nullable=True))
    for dataset in op.get_bind().execute(sa.select(_DATASETS)).all():
        statement = sa.update(_DATASETS).where(_DATASETS.c.id == dataset.id)
        op.get_bind().execute(statement.values(dict(zip(_COLUMNS, _counted(dataset), strict=True))))


def downgrade() -> None:
    with op.batch_alter_table("label_changes") as batch:
        batch.drop_column("counts")
    with op.batch_alter_table("datasets") as batch:
        for name in _COLUMNS:
            batch.drop_column(name)


def _counted(dataset: Any) -> tuple[list[int], list[int]]:
    """Return the images of each section, and the images with a mask that lack each class."""
    num_classes = len(dataset.class_names) if isinstance(dataset.class_names, list) else 0
    of_sections, without, after = [0] * dataset.num_sections, [0] * num_classes, -1
    while True:
        query = sa.select(_IMAGES.c.n, _IMAGES.c.section, _IMAGES.c.class_pixels)
        query = query.where(_IMAGES.c.dataset_id == dataset.id, _IMAGES.c.n > after)
        rows = op.get_bind().execute(query.order_by(_IMAGES.c.n).limit(_ROWS_AT_A_TIME)).all()
        for _, section, counts in rows:
            if 0 <= section < len(of_sections):
                of_sections[section] += 1
            if isinstance(counts, list) and len(counts) == num_classes:
                without = [n + (count == 0) for n, count in zip(without, counts, strict=True)]
        if len(rows) < _ROWS_AT_A_TIME:
            return of_sections, without
        after = rows[-1].n
