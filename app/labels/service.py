"""Use cases of image-level labels: write in bulk, read, derive from masks."""

from collections import Counter
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.errors import Invalid, ProblemItem
from app.labels.schemas import DeriveRequest, LabelsRead, LabelsSummary, LabelsUpdate
from app.pagination import Page
from app.tables import Dataset, Image, LabelState


def update(session: Session, dataset_id: UUID, request: LabelsUpdate) -> LabelsSummary:
    """Write all labels of the request, or refuse it naming every wrong entry."""
    dataset = datasets.hold(session, dataset_id)
    _check(dataset, request)
    images = _images(session, dataset_id)
    for entry in request.labels:
        image = images[entry.image]
        merged = {**image.labels, **{name: state.value for name, state in entry.classes.items()}}
        image.labels = _known(merged)
    session.commit()
    changed = len({entry.image for entry in request.labels})
    return _summary(dataset, images, changed)


def read(session: Session, dataset_id: UUID, limit: int, cursor: str | None) -> Page[LabelsRead]:
    dataset = datasets.get(session, dataset_id)
    rows, following = datasets.image_rows(session, dataset_id, limit, cursor)
    items = [
        LabelsRead(
            image=row.n,
            section=dataset.sections[row.section]["name"],
            classes={name: _state(row, name) for name in dataset.class_names},
        )
        for row in rows
    ]
    return Page(items=items, next=following)


def derive(session: Session, dataset_id: UUID, request: DeriveRequest) -> LabelsSummary:
    """Label each masked image: a class with ``min_pixels`` pixels is present, else absent.

    Images without a mask, and those whose mask ignores every pixel, keep their labels.
    """
    dataset = datasets.hold(session, dataset_id)
    images = _images(session, dataset_id)
    changed = 0
    for image in images.values():
        wanted = request.split in (None, dataset.sections[image.section]["split"])
        if wanted and image.class_pixels and any(image.class_pixels):
            image.labels = {
                name: LabelState.PRESENT if count >= request.min_pixels else LabelState.ABSENT
                for name, count in zip(dataset.class_names, image.class_pixels, strict=True)
            }
            changed += 1
    if not changed:
        message = "no image of the dataset (or split) has a mask to derive labels from"
        raise Invalid(message, [ProblemItem(where="path.dataset_id", message=message)])
    session.commit()
    return _summary(dataset, images, changed)


def _check(dataset: Dataset, request: LabelsUpdate) -> None:
    problems: list[ProblemItem] = []
    known = set(dataset.class_names)
    for index, entry in enumerate(request.labels):
        where = f"body.labels.{index}"
        if entry.image >= dataset.num_images:
            last = dataset.num_images - 1
            message = f"there is no image {entry.image}; the last is {last}"
            problems.append(ProblemItem(where=f"{where}.image", message=message))
        problems += [
            ProblemItem(where=f"{where}.classes.{name}", message=f"{name!r} is no class")
            for name in sorted(entry.classes.keys() - known)
        ]
    if problems:
        first = f"{problems[0].where}: {problems[0].message}"
        raise Invalid(f"{len(problems)} label(s) are wrong, none was written; {first}", problems)


def _images(session: Session, dataset_id: UUID) -> dict[int, Image]:
    """All images, locked, so that labels which others write meanwhile are merged, not lost."""
    query = select(Image).where(Image.dataset_id == dataset_id).order_by(Image.n)
    query = query.with_for_update().execution_options(populate_existing=True)
    return {image.n: image for image in session.scalars(query)}


def _known(labels: dict[str, str]) -> dict[str, str]:
    return {name: state for name, state in labels.items() if state != LabelState.UNKNOWN}


def _state(image: Image, name: str) -> LabelState:
    return LabelState(image.labels.get(name, LabelState.UNKNOWN))


def _summary(dataset: Dataset, images: dict[int, Image], changed: int) -> LabelsSummary:
    counts = {}
    for name in dataset.class_names:
        found = Counter(_state(image, name) for image in images.values())
        counts[name] = {state: found[state] for state in LabelState}
    return LabelsSummary(changed_images=changed, counts=counts)
