"""Writes and reads image-level labels, counts them, and derives them from masks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import IO
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.columns import stored_list
from app.database import Database
from app.datasets import service as datasets
from app.errors import Invalid, NotFound, ProblemItem, refusal
from app.http.pagination import Page
from app.labels import changes
from app.labels.changes import AskedChange, Version
from app.labels.collected import Classes, Collected
from app.labels.counts import by_state
from app.labels.naming import Extent, ImageNames
from app.labels.placed import is_point_sheet, placed, read_points, write_points_sheet
from app.labels.points import Place, Wanted, point_counts
from app.labels.schemas import (
    ChangeRead,
    DerivedSummary,
    DeriveRequest,
    LabelsRead,
    LabelsSummary,
    LabelsUpdate,
    PointLabel,
    TileSizeRead,
    TileSizesRead,
)
from app.labels.sheet import read_sheet, write_sheet
from app.labels.stored import stored_labels
from app.labels.update import read_update
from app.storage import Storage
from app.tables import ChangeKind, Dataset, Image
from models.data.labels import LabelState, labels_in_words, labels_of_mask, present_classes
from models.data.tile_sizes import tile_sizes

_ROWS_AT_ONCE = 1000


def put_json(
    database: Database, dataset_id: UUID, body: bytes, asked: AskedChange
) -> tuple[LabelsSummary, Version]:
    """Write the labels of a ``LabelsUpdate``; Invalid names each wrong entry and writes none."""
    request = read_update(body)
    dataset, names = _named(database, dataset_id)
    labels = _entries(request, names, dataset.class_names)
    points = _points(database, dataset, names, enumerate(request.points), "body.points.{}")
    return _write(database, dataset, Wanted(labels, points), ChangeKind.PUT, asked)


def put_sheet(
    database: Database, dataset_id: UUID, body: bytes, asked: AskedChange
) -> tuple[LabelsSummary, Version]:
    """Write a table of CSV, of labels or points; Invalid names each wrong line and writes none."""
    dataset, names = _named(database, dataset_id)
    if is_point_sheet(body) and not {"y", "x", "class"} <= set(dataset.class_names):
        collected = Collected("line {}")
        entries = list(read_points(body, collected))
        collected.refuse_problems()
        if not entries:
            collected.problem(2, "is missing: write a line for each point")
            collected.refuse_problems()
        wanted = Wanted({}, _points(database, dataset, names, entries, "line {}"))
    else:
        wanted = Wanted(read_sheet(body, names, dataset.class_names))
    return _write(database, dataset, wanted, ChangeKind.CSV, asked)


def derive(
    database: Database, dataset_id: UUID, request: DeriveRequest, asked: AskedChange
) -> tuple[DerivedSummary, Version]:
    """Label each image that has a mask; Invalid if no image has one.

    A class with enough pixels in the mask is present, any other class is absent. A class that was
    not annotated in the mask, an image without a mask, and one whose mask ignores every pixel keep
    their labels.
    """
    with database.reading() as session:
        dataset = datasets.get(session, dataset_id)
        wanted = _derived(session, dataset, request)
    if not wanted:
        chosen = "" if request.split is None else f" in the split {request.split!r}"
        message = (
            f"dataset {dataset_id} has no image with a mask{chosen}, so no label can be derived: "
            "send labels with PUT instead"
        )
        raise Invalid(message, [ProblemItem(where="path.dataset_id", message=message)])
    summary, version = _write(database, dataset, Wanted(wanted), ChangeKind.DERIVE, asked)
    derived = {
        name: dict.fromkeys((LabelState.PRESENT, LabelState.ABSENT), 0)
        for name in dataset.class_names
    }
    for classes in wanted.values():
        for name, state in classes.items():
            derived[name][state] += 1
    return DerivedSummary(**dict(summary), derived=derived, notes=_notes(derived)), version


def read(session: Session, dataset_id: UUID, limit: int, cursor: str | None) -> Page[LabelsRead]:
    dataset = datasets.get(session, dataset_id)
    rows, following = datasets.image_rows(session, dataset_id, limit, cursor)
    extents = _extents(dataset)
    items = [
        LabelsRead(
            image=row.n,
            section=dataset.sections[row.section].name,
            tile=row.n - extents[row.section].first,
            classes=_states(dataset, row.labels),
        )
        for row in rows
    ]
    return Page(items=items, next=following)


def version(session: Session, dataset_id: UUID) -> Version:
    datasets.get(session, dataset_id)
    return changes.current(session, dataset_id)


def history(session: Session, dataset_id: UUID, limit: int, cursor: str | None) -> Page[ChangeRead]:
    datasets.get(session, dataset_id)
    rows, following = changes.history(session, dataset_id, limit, cursor)
    return Page(items=[ChangeRead.model_validate(row) for row in rows], next=following)


def measured_tiles(
    database: Database, storage: Storage, dataset_id: UUID, min_pixels: int
) -> TileSizesRead:
    """Measure tiles of several sizes in the dataset's masks; NotFound if it has none."""
    with database.reading() as session:
        dataset = datasets.get(session, dataset_id)
        sections, names = dataset.sections, dataset.class_names
    if not any(section.has_mask for section in sections):
        raise NotFound(
            f"dataset {dataset_id} has no masks in which tiles could be measured: ask for those of "
            "a dataset with masks, such as the source"
        )
    folder = storage.dataset(dataset_id)
    found = tile_sizes(folder, sections, len(names), min_pixels=min_pixels)
    sizes = [
        TileSizeRead(
            tile_px=size.tile_px,
            tile_nm=size.tile_px * dataset.pixel_size_nm,
            num_tiles=size.num_tiles,
            shares=dict(zip(names, size.shares, strict=True)),
        )
        for size in found.sizes
    ]
    return TileSizesRead(sizes=sizes, suggested_tile_px=found.suggested_px, read=found.read)


def write_table(database: Database, dataset_id: UUID, file: IO[bytes]) -> Version:
    """Write the labels of all images to a file, as a table that ``put_sheet`` takes."""
    with database.reading() as session:
        dataset = datasets.get(session, dataset_id)
        found = changes.current(session, dataset_id)
        rows = _table_rows(session, dataset)
        tiles = dataset.tile_px is not None
        for piece in write_sheet(rows, dataset.class_names, tiles=tiles):
            file.write(piece)
    return found


def points_table(database: Database, dataset_id: UUID) -> tuple[bytes, Version]:
    """Return all points as a table that ``put_sheet`` takes, and the version of the labels."""
    with database.reading() as session:
        dataset = datasets.get(session, dataset_id)
        found = changes.current(session, dataset_id)
        return write_points_sheet(session, dataset), found


def _table_rows(
    session: Session, dataset: Dataset
) -> Iterator[tuple[str, int, Sequence[LabelState]]]:
    names = [section.name for section in dataset.sections]
    query = select(Image.section, Image.labels).where(Image.dataset_id == dataset.id)
    query = query.order_by(Image.n).execution_options(yield_per=_ROWS_AT_ONCE)
    section, tile = -1, 0
    for its_section, labels in session.execute(query):
        tile = tile + 1 if its_section == section else 0
        section = its_section
        yield names[section], tile, tuple(_states(dataset, labels).values())


def _write(
    database: Database,
    dataset: Dataset,
    wanted: Wanted,
    kind: ChangeKind,
    asked: AskedChange,
) -> tuple[LabelsSummary, Version]:
    found, changed, changed_points = changes.write(database, dataset.id, wanted, kind, asked)
    with database.reading() as session:
        summary = LabelsSummary(
            version=found.number,
            changed_images=changed,
            counts=by_state(changes.counts(session, dataset.id), dataset),
            changed_points=changed_points,
            points=point_counts(session, dataset.id, dataset.class_names),
        )
    return summary, found


def _points(
    database: Database,
    dataset: Dataset,
    names: ImageNames,
    entries: Iterable[tuple[int, PointLabel]],
    place: str,
) -> dict[int, dict[Place, LabelState]]:
    collected = Collected(place)
    with database.reading() as session:
        found = placed(session, dataset, names, entries, collected)
    collected.refuse_problems()
    return found


def _named(database: Database, dataset_id: UUID) -> tuple[Dataset, ImageNames]:
    """Return a dataset and the names of its images."""
    with database.reading() as session:
        dataset = datasets.get(session, dataset_id)
        sections, extents = dataset.sections, _extents(dataset)
    return dataset, ImageNames(sections, extents)


def _extents(dataset: Dataset) -> dict[int, Extent]:
    """Return the images of each section that has some, by the section's index."""
    counts: list[int] = dataset.section_images
    firsts = accumulate(counts, initial=0)
    return {
        index: Extent(first, count)
        for index, (first, count) in enumerate(zip(firsts, counts, strict=False))
        if count
    }


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


def _derived(session: Session, dataset: Dataset, request: DeriveRequest) -> dict[int, Classes]:
    """Return the labels that the masks give, by the number of the image."""
    names = dataset.class_names
    given = request.min_pixels
    for name in sorted(given.keys() - set(names)) if isinstance(given, dict) else ():
        message = f"the dataset has no class {name!r}: its classes are {', '.join(names)}"
        raise refusal(f"min_pixels.{name}", message)
    least = [given.get(name, 1) if isinstance(given, dict) else given for name in names]
    query = select(Image.n, Image.section, Image.class_pixels)
    query = query.where(Image.dataset_id == dataset.id, Image.class_pixels.is_not(None))
    wanted: dict[int, Classes] = {}
    # Most images show the same classes as another.
    alike: dict[tuple[bytes, tuple[int, ...] | None], Classes] = {}
    for n, number, pixels in session.execute(query.execution_options(yield_per=_ROWS_AT_ONCE)):
        section = dataset.sections[number]
        counts = [count for count in stored_list(pixels) if isinstance(count, int)]
        if len(counts) != len(names) or not any(counts):
            continue
        if request.split in (None, section.split):
            key = (present_classes(counts, least).tobytes(), section.unannotated)
            if key not in alike:
                codes = labels_of_mask(counts, least, section.unannotated)
                alike[key] = labels_in_words(codes, names)
            wanted[n] = alike[key]
    return wanted


def _notes(derived: Mapping[str, Mapping[LabelState, int]]) -> dict[str, str]:
    """Return remarks on classes whose labels are alike in all images that were labelled."""
    labelled = max(sum(counts.values()) for counts in derived.values())
    notes = {}
    for name, counts in derived.items():
        if not any(counts.values()):
            notes[name] = "it was annotated in no image, so it stays unknown in all"
        elif not counts[LabelState.PRESENT]:
            notes[name] = (
                "no image has enough pixels of it, so it is absent in all: look whether the masks "
                "hold it, and whether the least number of pixels is too large"
            )
        elif counts[LabelState.PRESENT] == labelled:
            notes[name] = (
                "it is present in all images, so its labels exclude nothing: smaller tiles may be "
                "without it"
            )
    return notes


def _states(dataset: Dataset, labels: JsonValue) -> dict[str, LabelState]:
    known = stored_labels(labels)
    return {name: known.get(name, LabelState.UNKNOWN) for name in dataset.class_names}
