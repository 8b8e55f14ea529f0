"""Lists, shows and deletes datasets."""

from typing import Any
from uuid import UUID

import numpy as np
import zarr
from pydantic import JsonValue
from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from app.columns import stored_list
from app.database import Database, now_plus
from app.datasets.schemas import DatasetRead, DatasetReport, ImageRead, NoteRead, SectionRead
from app.errors import Conflict, NotFound
from app.http.pagination import Page, by_number, newest_first
from app.storage import Storage
from app.tables import UNFINISHED, Dataset, IdempotencyKey, Image, Job, LabelChange
from models.data.images import png_bytes, shown

_PLAIN_FIELDS = tuple(DatasetRead.model_fields.keys() - {"intensity_window", "previous"})


def live() -> ColumnElement[bool]:
    """Return the SQL condition that a dataset is there to be seen."""
    return and_(Dataset.deleted_at.is_(None), ~Dataset.hidden)


def list_datasets(
    session: Session, limit: int, cursor: str | None, *, all_versions: bool = False
) -> Page[DatasetRead]:
    """Return a page of datasets, newest first; of each one only its newest version, unless all."""
    query = select(Dataset).where(live())
    if not all_versions:
        newer = aliased(Dataset)
        seen = newer.deleted_at.is_(None) & ~newer.hidden
        query = query.where(~exists().where(newer.previous_id == Dataset.id, seen))
    found, following = newest_first(session, query, limit, cursor)
    return Page(items=[read(row) for row in found], next=following)


def get(session: Session, dataset_id: UUID) -> Dataset:
    """Return the dataset; NotFound if it never existed or was deleted."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None or dataset.hidden or dataset.deleted_at is not None:
        raise NotFound(f"there is no dataset {dataset_id}: GET /datasets lists all datasets")
    return dataset


def hold(session: Session, dataset_id: UUID) -> Dataset:
    """Return the dataset, and keep others from deleting it until the transaction ends."""
    get(session, dataset_id)
    session.get(
        Dataset,
        dataset_id,
        populate_existing=True,
        with_for_update={"read": True, "key_share": True},
    )
    return get(session, dataset_id)


def report(session: Session, dataset_id: UUID) -> DatasetReport:
    """Return a dataset with its sections and notes; its images are not looked at."""
    dataset = get(session, dataset_id)
    return DatasetReport(
        **_fields(dataset),
        sections=[SectionRead.model_validate(section) for section in dataset.sections],
        class_pixels=class_pixels(dataset),
        description=dataset.description,
        notes=[NoteRead.model_validate(note) for note in dataset.notes],
    )


def class_pixels(dataset: Dataset) -> dict[str, int]:
    """Return the pixels of each class in all masks of a dataset."""
    totals = dict.fromkeys(dataset.class_names, 0)
    for counts in stored_list(dataset.section_pixels):
        for name, count in (_by_class(dataset, counts) or {}).items():
            totals[name] += count
    return totals


def list_images(
    session: Session, dataset_id: UUID, limit: int, cursor: str | None
) -> Page[ImageRead]:
    dataset = get(session, dataset_id)
    found, following = image_rows(session, dataset_id, limit, cursor)
    items = [_image(dataset, row) for row in found]
    return Page(items=items, next=following)


def image_rows(
    session: Session, dataset_id: UUID, limit: int, cursor: str | None
) -> tuple[list[Image], str | None]:
    """Return a page of a dataset's images by number, and the cursor of the next page."""
    query = select(Image).where(Image.dataset_id == dataset_id)
    return by_number(session, query, Image.n, limit, cursor)


def preview(session: Session, storage: Storage, dataset_id: UUID, n: int, layer: str) -> bytes:
    """Return an image, or its mask, as PNG; grey values that PNG cannot hold as 8 bits.

    The session is closed before pixels are read.
    """
    dataset = get(session, dataset_id)
    image = session.get(Image, (dataset_id, n))
    if image is None:
        last = dataset.num_images - 1
        raise NotFound(f"dataset {dataset_id} has no image {n}: its images are 0 to {last}")
    if layer == "masks" and image.class_pixels is None:
        raise NotFound(f"image {n} of dataset {dataset_id} has no mask: ask for its layer images")
    session.close()
    group = zarr.open_group(str(storage.dataset(dataset_id)), mode="r")
    array = group[f"{layer}/{image.section:06d}"]
    assert isinstance(array, zarr.Array)
    rows = slice(image.y0, image.y0 + image.height)
    cols = slice(image.x0, image.x0 + image.width)
    pixels = np.asarray(array[rows, cols])
    return png_bytes(shown(pixels, (dataset.window_low, dataset.window_high)))


def remove(database: Database, dataset_id: UUID) -> None:
    """Delete a dataset: from now on nobody sees it. Its files and images have to be removed then.

    Its own row stays, since models refer to it.
    """
    with database.session() as session:
        dataset = get(session, dataset_id)
        session.refresh(dataset, with_for_update=True)
        dataset = get(session, dataset_id)
        in_use = session.scalar(
            select(func.count())
            .select_from(Job)
            .where(
                Job.state.in_(UNFINISHED),
                or_(Job.source_id == dataset_id, Job.target_id == dataset_id),
            )
        )
        if in_use:
            raise Conflict(
                f"{in_use} unfinished job(s) use dataset {dataset_id}: cancel them, or wait for "
                "their end"
            )
        session.execute(delete(LabelChange).where(LabelChange.dataset_id == dataset_id))
        dataset.deleted_at = now_plus()
        dataset.identity = None
        # A request that registered it may come again, to register it anew.
        session.execute(delete(IdempotencyKey).where(IdempotencyKey.dataset_id == dataset_id))
        session.commit()


def read(dataset: Dataset) -> DatasetRead:
    return DatasetRead(**_fields(dataset))


def _fields(dataset: Dataset) -> dict[str, Any]:
    window = (dataset.window_low, dataset.window_high)
    plain = {name: getattr(dataset, name) for name in _PLAIN_FIELDS}
    return plain | {"intensity_window": window, "previous": dataset.previous_id}


def _by_class(dataset: Dataset, class_pixels: JsonValue) -> dict[str, int] | None:
    """Return the pixels of each class; None if there is no mask, or no number for each class."""
    counts = [count for count in stored_list(class_pixels) if isinstance(count, int)]
    names = dataset.class_names
    return dict(zip(names, counts, strict=True)) if len(counts) == len(names) else None


def _image(dataset: Dataset, row: Image) -> ImageRead:
    section = dataset.sections[row.section]
    return ImageRead(
        n=row.n,
        section=section.name,
        split=section.split,
        y0=row.y0,
        x0=row.x0,
        height=row.height,
        width=row.width,
        class_pixels=_by_class(dataset, row.class_pixels),
    )
