"""Fetch the crops of a plan into a folder of TIFF files, which registers like any other folder.

The folder holds ``images/crop1.tif`` and ``masks/crop1.tif`` with a page for each section, and a
record ``crops/crop1.json`` that is written last: a crop with a record is complete. When all are,
``labels.csv`` tells the classes of each section, and ``meta.json``, which describes the folder to
those who register it, is written last.
"""

import csv
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from shutil import disk_usage

import numpy as np
import tifffile
from pydantic import ValidationError

from models.data.files import PARTIAL_SUFFIX, written_aside
from models.data.intake.one_pass import MAX_SECTION_PIXELS
from models.data.labels import class_pixels
from models.data.names import section_names
from models.data.openorganelle.inputs import CropInput, Kind, description
from models.data.openorganelle.plan import Crop, Plan
from models.data.openorganelle.record import CropRecord
from models.data.openorganelle.source import OpenOrganelleSource
from models.data.readers.limits import Array, ImageError
from models.data.readers.stack import Ask

_NM_PER_CM = 1e7
_BIG = 1 << 31  # bytes beyond which a TIFF needs wide offsets
_PARTS = ("images", "masks", "crops")


class FetchError(ValueError):
    """Crops cannot be fetched into a folder; the message says why."""


@dataclass(frozen=True)
class Fetched:
    """The crop that is done: the ``number``-th of ``total``; ``kept`` from an earlier call or new.

    ``num_bytes`` were read for it.
    """

    record: CropRecord
    number: int
    total: int
    kept: bool
    num_bytes: int


def fetch(
    plan: Plan, folder: Path, on_crop: Callable[[Fetched], None] = lambda _: None
) -> list[CropRecord]:
    """Read all crops of a plan and write them to a folder. Crops that are there already are kept.

    An interrupted call loses the crop it was at, and the next call goes on. Kept crops are checked
    by the checksums of their files, and fetched anew if these differ.

    Raises:
        FetchError: the folder holds something else, or another call is writing to it, or the disk
            has too little room; or a crop cannot be read.
    """
    with _locked(folder):
        _claim(plan, folder)
        _check_room(plan, folder)
        records = []
        for number, crop in enumerate(plan.crops, start=1):
            before = _num_bytes(plan, crop)
            record = _kept(plan, crop, folder)
            kept = record is not None
            if record is None:
                record = _fetched(plan, crop, folder)
            records.append(record)
            read = _num_bytes(plan, crop) - before
            on_crop(Fetched(record, number, len(plan.crops), kept, read))
        _write_labels(folder / "labels.csv", plan.table.class_names, records)
        told = description(plan).model_dump(mode="json", exclude_unset=True)
        _write_json(folder / "meta.json", {"name": plan.source.cell, **told})
    return records


def keep_crop(plan: Plan, crop: Crop, folder: Path) -> dict[Kind, Path]:
    """Return the files of a crop's images and masks in a folder; fetch them unless they are there.

    Raises:
        FetchError: the crop cannot be read.
    """
    for part in _PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
    if _kept(plan, crop, folder) is None:
        _fetched(plan, crop, folder)
    return {"images": _image_path(folder, crop), "masks": _mask_path(folder, crop)}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    for part in _PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FetchError(f"another program is fetching into {folder}: wait for it") from error
        for part in _PARTS:  # drafts of a killed call
            for draft in (folder / part).glob(f".*{PARTIAL_SUFFIX}"):
                draft.unlink()
        yield


def _claim(plan: Plan, folder: Path) -> None:
    """Note what the folder holds; FetchError if it holds crops of another source."""
    path, source = folder / "openorganelle.json", plan.source
    if path.exists():
        try:
            there = OpenOrganelleSource.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise FetchError(f"{path} is not what a fetch writes: choose another folder") from error
        # Another mirror has the same crops.
        if there.changed({"at": source.at, "crops": source.crops}) != source:
            raise FetchError(
                f"{folder} holds crops of {there.cell} by other settings, which openorganelle.json "
                "tells: choose another folder"
            )
    elif any(any((folder / part).iterdir()) for part in _PARTS):
        raise FetchError(f"{folder} holds images or masks of something else: choose another folder")
    known = {crop.name for crop in plan.crops}
    strange = [each.stem for each in (folder / "images").glob("*.tif") if each.stem not in known]
    if strange:
        raise FetchError(
            f"{folder} holds {strange[0]}, which is not asked for: choose another folder, or "
            "remove its files from images, masks and crops"
        )
    (folder / "meta.json").unlink(missing_ok=True)
    _write_json(path, source.model_dump(mode="json"))


def _check_room(plan: Plan, folder: Path) -> None:
    missing = (crop for crop in plan.crops if not _record_path(folder, crop).exists())
    # Micrographs hardly shrink when they are compressed, and masks take next to nothing.
    needed = sum(prod(crop.box.shape) for crop in missing) * plan.em.dtype.itemsize
    free = disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"{folder} has room for {free / 1e9:.1f} GB, and the crops may take "
            f"{needed / 1e9:.1f} GB: choose another disk, or fewer crops"
        )


def _kept(plan: Plan, crop: Crop, folder: Path) -> CropRecord | None:
    """Return the record of a crop that was fetched before, if its files are what it tells."""
    try:
        record = CropRecord.model_validate_json(_record_path(folder, crop).read_bytes())
    except (OSError, ValidationError):
        return None
    wanted = _facts(plan, crop)
    if any(getattr(record, name) != value for name, value in wanted.items()):
        return None
    sums = {_image_path(folder, crop): record.image_sha256}
    sums[_mask_path(folder, crop)] = record.mask_sha256
    if any(not path.is_file() or _sha256(path) != expected for path, expected in sums.items()):
        return None
    return record


def _fetched(plan: Plan, crop: Crop, folder: Path) -> CropRecord:
    path = _record_path(folder, crop)
    path.unlink(missing_ok=True)
    counts: list[tuple[int, ...]] = []
    num_classes = len(plan.table.classes)

    def counted(masks: Iterable[Array]) -> Iterator[Array]:
        for mask in masks:
            counts.append(tuple(class_pixels(mask.astype(np.uint8), num_classes).tolist()))
            yield mask

    ask = Ask(MAX_SECTION_PIXELS)
    for each in crop.arrays:
        each.volume.lost.clear()
    try:
        with CropInput("images", plan, crop).open(ask) as images:
            _write_tiff(_image_path(folder, crop), images.sections, plan, crop)
        with CropInput("masks", plan, crop).open(ask) as masks:
            _write_tiff(_mask_path(folder, crop), counted(masks.sections), plan, crop)
    except ImageError as error:
        raise FetchError(f"{crop.name} {error}") from error
    shown = np.flatnonzero(np.array(counts).sum(axis=0)).tolist()
    num_lost = sum(len(each.volume.lost) for each in crop.arrays)
    if num_lost and not shown:
        raise FetchError(
            f"{crop.name} lacks {num_lost} file(s) of labels, and no other has a pixel of a class: "
            "the copy is not complete, or was made for other crops"
        )
    record = CropRecord(
        **_facts(plan, crop),
        place=plan.place,
        class_names=plan.table.class_names,
        annotated=tuple(plan.table.class_names[n] for n in sorted(crop.annotated)),
        class_pixels=tuple(counts),
        homogeneous=plan.table.class_names[shown[0]] if len(shown) == 1 else None,
        num_lost=num_lost,
        image_sha256=_sha256(_image_path(folder, crop)),
        mask_sha256=_sha256(_mask_path(folder, crop)),
        notes=(*crop.notes, *_found(plan, shown, num_lost)),
    )
    _write_json(path, record.model_dump(mode="json"))
    return record


def _found(plan: Plan, shown: Sequence[int], num_lost: int) -> list[str]:
    """Return notes about what only the voxels tell."""
    notes = []
    if not shown:
        notes.append("has no pixel of a class of the table")
    if len(shown) == 1:
        notes.append(f"is homogeneous: {plan.table.class_names[shown[0]]}")
    if num_lost:
        notes.append(
            f"lacks {num_lost} file(s) of labels: what they would tell counts as not annotated"
        )
    return notes


def _num_bytes(plan: Plan, crop: Crop) -> int:
    volumes = [plan.em, *(each.volume for each in crop.arrays)]
    return sum(volume.num_bytes_read for volume in volumes)


def _facts(plan: Plan, crop: Crop) -> dict[str, object]:
    """Return the fields by which a fetched crop is the same as one that is planned."""
    return {
        "name": crop.name,
        "group": crop.group,
        "em": plan.em.key,
        "labels": tuple(each.volume.key for each in crop.arrays),
        "start": crop.box.start,
        "shape": crop.box.shape,
        "voxel_nm": plan.em.grid.voxel_nm,
        "block": crop.block,
        "table": hashlib.sha256(plan.table.model_dump_json().encode()).hexdigest(),
    }


def _write_tiff(path: Path, sections: Iterable[Array], plan: Plan, crop: Crop) -> None:
    per_cm = _NM_PER_CM / plan.pixel_size_nm
    big = prod(crop.box.shape) * plan.em.dtype.itemsize > _BIG
    with (
        written_aside(path, durable=True) as draft,
        tifffile.TiffWriter(draft, bigtiff=big) as tiff,
    ):
        for section in sections:
            tiff.write(
                section,
                photometric="minisblack",
                compression="zlib",
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def _write_labels(path: Path, class_names: Sequence[str], records: Iterable[CropRecord]) -> None:
    """Write which classes each section shows: 1 yes, 0 no, and nothing where nobody knows.

    Labels that are derived from masks would call a class absent that was not annotated.
    """
    with written_aside(path) as draft, draft.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["section", *class_names])
        for record in records:
            names = section_names(record.name, record.shape[0])
            known = [name in record.annotated for name in class_names]
            for name, counts in zip(names, record.class_pixels, strict=True):
                some = any(counts)  # a section without any class tells nothing
                states = [
                    "1" if count else "0" if some and told else ""
                    for count, told in zip(counts, known, strict=True)
                ]
                writer.writerow([name, *states])


def _write_json(path: Path, content: object) -> None:
    with written_aside(path, durable=True) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _image_path(folder: Path, crop: Crop) -> Path:
    return folder / "images" / f"{crop.name}.tif"


def _mask_path(folder: Path, crop: Crop) -> Path:
    return folder / "masks" / f"{crop.name}.tif"


def _record_path(folder: Path, crop: Crop) -> Path:
    return folder / "crops" / f"{crop.name}.json"
