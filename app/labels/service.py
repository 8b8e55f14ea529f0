"""Writes and reads image-level labels, and derives them from masks."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic import JsonValue, ValidationError
from sqlalchemy import Select, func, select
from sqlalchemy import update as update_table
from sqlalchemy.orm import Session

from app.columns import stored_object
from app.database import Database
from app.datasets import service as datasets
from app.errors import Invalid, ProblemItem
from app.labels.collected import MOST_PROBLEMS, Classes, Collected, refused
from app.labels.naming import Extent, ImageNames
from app.labels.schemas import DeriveRequest, LabelsRead, LabelsSummary, LabelsUpdate
from app.labels.sheet import read_sheet
from app.pagination import Page
from app.tables import Dataset, Image
from models.data.labels import LabelState, known_labels, present_classes

_CHUNK = 1000
_KNOWN = (LabelState.PRESENT, LabelState.ABSENT)

Labels = Mapping[str, str]


def put_json(database: Database, dataset_id: UUID, body: bytes) -> LabelsSummary:
    """Write the labels of a ``LabelsUpdate``; Invalid names each wrong entry and writes none."""
    try:
        request = LabelsUpdate.model_validate_json(body)
    except ValidationError as error:
        items = [
            ProblemItem(where=".".join(map(str, ("body", *each["loc"]))), message=each["msg"])
            for each in error.errors(include_url=False, include_input=False)[:MOST_PROBLEMS]
        ]
        raise refused(error.error_count(), items) from error
    dataset, names = _named(database, dataset_id)
    return _update(database, dataset, _entries(request, names, dataset.class_names))


def put_sheet(database: Database, dataset_id: UUID, body: bytes) -> LabelsSummary:
    """Write the labels of a table of CSV; Invalid names each wrong line and writes none."""
    dataset, names = _named(database, dataset_id)
    return _update(database, dataset, read_sheet(body, names, dataset.class_names))


def _named(database: Database, dataset_id: UUID) -> tuple[Dataset, ImageNames]:
    """Return a dataset and the names of its images."""
    with database.reading() as session:
        dataset = datasets.get(session, dataset_id)
        sections = dataset.sections
        extents = _extents(session, dataset_id)
    return dataset, ImageNames(sections, extents)


def _extents(session: Session, dataset_id: UUID) -> dict[int, Extent]:
    query = select(Image.section, func.min(Image.n), func.count())
    rows = session.execute(query.where(Image.dataset_id == dataset_id).group_by(Image.section))
    return {section: Extent(first, count) for section, first, count in rows}


def _entries(
    request: LabelsUpdate, names: ImageNames, class_names: Sequence[str]
) -> dict[int, Classes]:
    collected = Collected("body.labels.{}")
    known = set(class_names)
    for index, entry in enumerate(request.labels):
        for name in sorted(entry.classes.keys() - known):
            message = f"the dataset has no class {name!r}: its classes are {', '.join(class_names)}"
            collected.problem(index, message, f".classes.{name}")
        field = ".image" if entry.section is None else ".section"
        try:
            if entry.image is not None:
                image = names.number(entry.image)
            else:
                image = names.tile(entry.section or "", entry.tile)
        except ValueError as error:
            collected.problem(index, str(error), field)
        else:
            collected.add(index, image, entry.classes)
    return collected.labels()


def _update(database: Database, dataset: Dataset, wanted: Mapping[int, Classes]) -> LabelsSummary:
    numbers = sorted(wanted)
    changed = 0
    with database.session() as session:
        datasets.hold(session, dataset.id)
        for start in range(0, len(numbers), _CHUNK):
            images = _locked(dataset.id).where(Image.n.in_(numbers[start : start + _CHUNK]))
            labels = {
                image.n: (image.labels, known_labels({**_stored(image.labels), **wanted[image.n]}))
                for image in session.execute(images)
            }
            changed += _write(session, dataset.id, labels)
        session.commit()
        return _summary(session, dataset, changed)


def read(session: Session, dataset_id: UUID, limit: int, cursor: str | None) -> Page[LabelsRead]:
    dataset = datasets.get(session, dataset_id)
    rows, following = datasets.image_rows(session, dataset_id, limit, cursor)
    first_of = _first_images(session, dataset_id, rows)
    items = [
        LabelsRead(
            image=row.n,
            section=dataset.sections[row.section].name,
            tile=row.n - first_of[row.section],
            classes=_states(dataset, row.labels),
        )
        for row in rows
    ]
    return Page(items=items, next=following)


def _first_images(session: Session, dataset_id: UUID, rows: Sequence[Image]) -> dict[int, int]:
    """Return the number of the first image of each section, for images that follow each other."""
    first_of: dict[int, int] = {}
    for row in reversed(rows):
        first_of[row.section] = row.n
    if rows:
        section, n = rows[0].section, rows[0].n
        before = select(Image.n).where(
            Image.dataset_id == dataset_id, Image.n < n, Image.section != section
        )
        last = session.scalar(before.order_by(Image.n.desc()).limit(1))
        first_of[section] = 0 if last is None else last + 1
    return first_of


def derive(session: Session, dataset_id: UUID, request: DeriveRequest) -> LabelsSummary:
    """Label each image that has a mask; Invalid if no image has one.

    A class with at least ``min_pixels`` pixels in the mask is present, any other class is absent.
    An image without a mask, or whose mask ignores every pixel, keeps its labels.
    """
    dataset = datasets.hold(session, dataset_id)
    found = changed = 0
    for start in range(0, dataset.num_images, _CHUNK):
        images = _locked(dataset_id).where(Image.n.between(start, start + _CHUNK - 1))
        labels = {
            image.n: (image.labels, _derived(dataset, image.class_pixels, request.min_pixels))
            for image in session.execute(images)
            if request.split in (None, dataset.sections[image.section].split)
            and image.class_pixels
            and any(image.class_pixels)
        }
        found += len(labels)
        changed += _write(session, dataset_id, labels)
    if not found:
        chosen = "" if request.split is None else f" in the split {request.split!r}"
        message = (
            f"dataset {dataset_id} has no image with a mask{chosen}, so no label can be derived: "
            "send labels with PUT instead"
        )
        raise Invalid(message, [ProblemItem(where="path.dataset_id", message=message)])
    session.commit()
    return _summary(session, dataset, changed)


def _locked(dataset_id: UUID) -> Select[Any]:
    """Select and lock the images of a dataset, so that no label written meanwhile is lost."""
    columns = (Image.n, Image.section, Image.class_pixels, Image.labels)
    query = select(*columns).where(Image.dataset_id == dataset_id)
    return query.order_by(Image.n).with_for_update()


def _write(session: Session, dataset_id: UUID, labels: Mapping[int, tuple[Labels, Labels]]) -> int:
    """Write the new labels where they differ from the old; return the number of such images.

    ``labels`` holds the old and the new labels of each image by number.
    """
    rows = [
        {"dataset_id": dataset_id, "n": n, "labels": new}
        for n, (old, new) in labels.items()
        if new != old
    ]
    if rows:
        session.execute(update_table(Image), rows)
    return len(rows)


def _derived(dataset: Dataset, class_pixels: list[int], min_pixels: int) -> Labels:
    shown = present_classes(class_pixels, min_pixels)
    return {
        name: LabelState.PRESENT if present else LabelState.ABSENT
        for name, present in zip(dataset.class_names, shown, strict=True)
    }


def _stored(labels: JsonValue) -> dict[str, LabelState]:
    """Return the labels of an image, without words that this version does not know."""
    words = stored_object(labels)
    return {name: LabelState(word) for name, word in words.items() if word in _KNOWN}


def _states(dataset: Dataset, labels: JsonValue) -> dict[str, LabelState]:
    known = _stored(labels)
    return {name: known.get(name, LabelState.UNKNOWN) for name in dataset.class_names}


def _summary(session: Session, dataset: Dataset, changed: int) -> LabelsSummary:
    counts = {name: dict.fromkeys(LabelState, 0) for name in dataset.class_names}
    query = select(Image.labels, func.count()).where(Image.dataset_id == dataset.id)
    for labels, count in session.execute(query.group_by(Image.labels)):
        for name, state in _states(dataset, labels).items():
            counts[name][state] += count
    return LabelsSummary(changed_images=changed, counts=counts)
