"""Makes a new version of a dataset, from new files or from those that are stored.

The stored arrays suffice if only the description changes: its tiles, splits, groups, pixel size,
window or class names. A change of what is read from the files needs the files.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import zarr
from pydantic import JsonValue, PrivateAttr, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from app.columns import stored_object
from app.database import Database
from app.datasets import service as datasets
from app.datasets.registrar import NextVersion, Registered
from app.datasets.schemas import DatasetCreate
from app.errors import Conflict, Invalid, invalid_fields, refusal
from app.labels.kept import keep
from app.tables import Dataset
from models.data.description import Description
from models.data.intake.inputs import Inputs
from models.data.intake.store import StoredTiles
from models.data.readers.limits import Array, native
from models.data.readers.stack import Ask, Stack
from models.data.sections import Section

_FILES = ("folder", "uploads")
_FROM_FILES = ("reading", "ignore_value", "mask_values", "crop")
"""The fields that say what is read from the files."""


def previous_of(session: Session, dataset_id: UUID) -> Dataset:
    """Return a dataset to make a new version of, with all its fields; NotFound if it is gone."""
    datasets.get(session, dataset_id)
    options = [undefer(Dataset.sections), undefer(Dataset.description), undefer(Dataset.notes)]
    return session.get_one(Dataset, dataset_id, options=options, populate_existing=True)


def check_newest(session: Session, dataset_id: UUID) -> None:
    """Raise Conflict if the dataset has a newer version."""
    newer = select(Dataset.id).where(Dataset.previous_id == dataset_id, datasets.live())
    if (found := session.scalar(newer)) is not None:
        raise Conflict(
            f"dataset {dataset_id} has a newer version, {found}: make a new version of that one"
        )


def changed(previous: Dataset, changes: Mapping[str, JsonValue], *, in_form: bool) -> DatasetCreate:
    """Return the request of a new version: the fields of the one before, but for some.

    Raises:
        Invalid: names the field that is wrong, or whose change needs the files.
    """
    fields = _described(previous) | dict(changes) | {"name": previous.name}
    known = {name: value for name, value in fields.items() if value is not None}
    if "name" in changes:
        raise refusal("name", "a version has the name of the dataset: leave this field out")
    try:
        request = DatasetCreate.model_validate(known)
    except ValidationError as error:
        raise invalid_fields(error.errors(), "body") from error
    if not in_form and not any(getattr(request, name) for name in _FILES):
        _reading(previous, request)  # refuse now what the stored arrays cannot give
    return request


def next_version(
    database: Database, previous: Dataset, request: DatasetCreate, *, stored: bool
) -> NextVersion:
    """Return the parts of the registration that make it a version; ``stored`` if without files."""

    def prepare(dataset: Dataset, tiles: StoredTiles) -> None:
        # In another rectangle the windows have the same numbers and other pixels.
        if _described(previous).get("crop") == stored_object(dataset.description).get("crop"):
            keep(database, previous, dataset, tiles)

    return NextVersion(previous, prepare, _reading(previous, request) if stored else None)


def complete_as_newest(session: Session, previous_id: UUID, registered: Registered) -> None:
    """Check, in the transaction that shows a version, that no other version came in between."""
    if registered.new:
        datasets.hold(session, previous_id)
        newer = select(Dataset.id).where(
            Dataset.previous_id == previous_id, datasets.live(), Dataset.id != registered.dataset_id
        )
        if session.scalar(newer) is not None:
            raise Conflict(f"another version of dataset {previous_id} was registered meanwhile")


def stored_inputs(previous: Dataset, folder: Path, request: DatasetCreate) -> Inputs:
    """Return the stored sections of a dataset, and their masks, as inputs."""
    said = None
    if request.pixel_size_nm is None:
        said = (previous.pixel_size_nm, previous.pixel_size_nm)
    images = [_Stored(folder, "images", section, said) for section in previous.sections]
    masks = [_Stored(folder, "masks", s, None) for s in previous.sections if s.has_mask]
    return Inputs(images, masks)


@dataclass(frozen=True)
class _Stored:
    """A stored section, or its mask."""

    folder: Path
    layer: str
    section: Section
    pixel_size_nm: tuple[float, float] | None
    """The size that the file said, if the file decided."""

    @property
    def name(self) -> str:
        return self.section.name

    @property
    def stem(self) -> str:
        return self.section.name

    @contextmanager
    def open(self, _ask: Ask) -> Iterator[Stack]:
        array = zarr.open_array(
            str(self.folder / self.layer / f"{self.section.index:06d}"), mode="r"
        )
        size = self.pixel_size_nm and (self.section.pixel_size_nm or self.pixel_size_nm)
        yield Stack(_once(array), 1, size, section_bytes=array.nbytes)

    def again(self) -> "_Stored":
        return self


def _once(array: zarr.Array[Any]) -> Iterator[Array]:
    yield native(np.asarray(array[:]))


class _AsStored(Description):
    """Describes how stored arrays are read; the digest is that of the dataset's description."""

    _described: Description = PrivateAttr()

    def for_digest(self, pixel_size_nm: float) -> str:
        return self._described.for_digest(pixel_size_nm)


def _reading(previous: Dataset, request: DatasetCreate) -> Description:
    """Return how the stored arrays are read to give what the request describes.

    Raises:
        Invalid: a change needs the files.
    """
    before = _described(previous)
    after = request.model_dump(mode="json")
    fields = request.model_dump(exclude={"name", *_FILES, *_FROM_FILES})
    remapped = request.mask_values is not None and _holds_file_values(previous, before)
    for name in _FROM_FILES:
        if after[name] == before.get(name, _default(name)):
            continue
        if name == "crop" and before.get("crop") is None:
            fields["crop"] = request.crop
        elif remapped and name == "mask_values":
            fields["mask_values"] = _as_stored(request, before)
        elif not (remapped and name == "ignore_value"):
            raise _needs_files(name)
    if "mask_values" not in fields:
        fields["ignore_value"] = 255  # by which ids are stored; without it 255 may be a class
    reading = _AsStored.model_validate(fields)
    reading._described = request
    return reading


def _holds_file_values(previous: Dataset, before: Mapping[str, JsonValue]) -> bool:
    """Tell whether the stored masks hold the values of the files, which were class ids."""
    replaced = any(note.code == "foreground_255" for note in previous.notes)
    return before.get("mask_values") is None and not replaced


def _as_stored(request: DatasetCreate, before: Mapping[str, JsonValue]) -> dict[int, str] | None:
    """Return the meaning of the stored values: ignored pixels are stored as 255."""
    ignored = before.get("ignore_value")
    values = dict(request.mask_values or {})
    if isinstance(ignored, int) and ignored in values:
        values[255] = values.pop(ignored)
    return values or None


def _described(previous: Dataset) -> dict[str, JsonValue]:
    """Return the description of a dataset; of an earlier version what its row tells."""
    if previous.description is not None:
        return dict(previous.description)
    sections = previous.sections
    splits: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    for section in sections:
        splits.setdefault(section.split, []).append(section.name)
        if section.group is not None:
            groups.setdefault(section.group, []).append(section.name)
    splits.pop("unused", None)
    return {
        "class_names": list(previous.class_names),
        "pixel_size_nm": previous.pixel_size_nm,
        "tile_px": previous.tile_px,
        "intensity_window": [previous.window_low, previous.window_high],
        "splits": {name: list(names) for name, names in splits.items()},
        "groups": {name: list(names) for name, names in groups.items()} or None,
    }


def _default(name: str) -> JsonValue:
    default = Description.model_fields[name].get_default(call_default_factory=True)
    value: JsonValue = default.model_dump(mode="json") if name == "reading" else default
    return value


def _needs_files(name: str) -> Invalid:
    return refusal(
        name,
        f"a change of {name} needs the files, because the stored pixels are what was made of them: "
        "name the folder or uploads again, or send the files in a form",
    )
