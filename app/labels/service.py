"""Writes and reads image-level labels, and derives them from masks."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import Select, func, select
from sqlalchemy import update as update_table
from sqlalchemy.orm import Session

from app.columns import stored_object
from app.datasets import service as datasets
from app.errors import Invalid, ProblemItem
from app.labels.schemas import DeriveRequest, LabelsRead, LabelsSummary, LabelsUpdate
from app.pagination import Page
from app.tables import Dataset, Image
from models.data.labels import LabelState, known_labels, present_classes

_CHUNK = 1000
_KNOWN = (LabelState.PRESENT, LabelState.ABSENT)

Labels = Mapping[str, str]


def update(session: Session, dataset_id: UUID, request: LabelsUpdate) -> LabelsSummary:
    """Write all labels of the request; Invalid names each wrong entry, and none is written."""
    dataset = datasets.hold(session, dataset_id)
    _check(dataset, request)
    wanted: dict[int, dict[str, str]] = {}
    for entry in request.labels:
        wanted.setdefault(entry.image, {}).update(entry.classes)
    numbers = sorted(wanted)
    changed = 0
    for start in range(0, len(numbers), _CHUNK):
        images = _locked(dataset_id).where(Image.n.in_(numbers[start : start + _CHUNK]))
        labels = {
            image.n: (image.labels, known_labels({**_stored(image.labels), **wanted[image.n]}))
            for image in session.execute(images)
        }
        changed += _write(session, dataset_id, labels)
    session.commit()
    return _summary(session, dataset, changed)


def read(session: Session, dataset_id: UUID, limit: int, cursor: str | None) -> Page[LabelsRead]:
    dataset = datasets.get(session, dataset_id)
    rows, following = datasets.image_rows(session, dataset_id, limit, cursor)
    items = [
        LabelsRead(
            image=row.n,
            section=dataset.sections[row.section].name,
            classes=_states(dataset, row.labels),
        )
        for row in rows
    ]
    return Page(items=items, next=following)


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


def _check(dataset: Dataset, request: LabelsUpdate) -> None:
    problems: list[ProblemItem] = []
    known = set(dataset.class_names)
    for index, entry in enumerate(request.labels):
        where = f"body.labels.{index}"
        if entry.image >= dataset.num_images:
            last = dataset.num_images - 1
            message = f"the dataset has no image {entry.image}: its images are 0 to {last}"
            problems.append(ProblemItem(where=f"{where}.image", message=message))
        problems += [
            ProblemItem(
                where=f"{where}.classes.{name}",
                message=f"the dataset has no class {name!r}: its classes are "
                f"{', '.join(dataset.class_names)}",
            )
            for name in sorted(entry.classes.keys() - known)
        ]
    if problems:
        first = f"{problems[0].where}: {problems[0].message}"
        raise Invalid(
            f"{len(problems)} label(s) are wrong, so none was written; the first is {first}",
            problems,
        )


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
