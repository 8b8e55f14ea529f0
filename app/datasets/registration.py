"""Reads the files of a new dataset once: checks them, stores them as Zarr, and takes stock."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zarr
from numpy.typing import NDArray

from app.datasets.schemas import CONTROL, DatasetCreate
from app.errors import Invalid, ProblemItem
from models.data.domain import Split
from models.data.images import (
    ImageError,
    check_image,
    check_mask,
    read_sections,
    section_name,
)
from models.data.labels import class_pixels
from models.data.splits import block_splits, group_splits, named_groups, named_splits
from models.data.tiles import tile_windows

_CHUNK_PX = 512
_PERMILLES = (5, 995)
_MAX_IMAGES = 1_000_000

Array = NDArray[np.generic]


@dataclass(frozen=True)
class InputFile:
    """One file of the user: the name to speak of it by, and where its bytes are."""

    name: str
    file: Path | BinaryIO

    @property
    def stem(self) -> str:
        return section_name(self.name)


@dataclass(frozen=True)
class TileRecord:
    """A row of the images table, before it has a dataset."""

    section: int
    y0: int
    x0: int
    height: int
    width: int
    class_pixels: list[int] | None


@dataclass
class Stock:
    """What registration found."""

    dtype: str = ""
    window: tuple[float, float] = (0.0, 1.0)
    sections: list[dict[str, Any]] = field(default_factory=list)
    tiles: list[TileRecord] = field(default_factory=list)
    num_bytes: int = 0
    digest: str = ""


class Registration:
    """Fills ``draft`` with a dataset's arrays; collects every problem before it refuses."""

    def __init__(self, request: DatasetCreate, draft: Path, max_pixels: int) -> None:
        self._request = request
        self._max_pixels = max_pixels
        self._group = zarr.create_group(str(draft))
        self._problems: list[ProblemItem] = []
        self._seen: dict[str, str] = {}
        self._digest = hashlib.sha256()
        self._histogram = np.zeros(65536, dtype=np.int64)
        self._stock = Stock()

    def run(self, images: Sequence[InputFile], masks: Sequence[InputFile]) -> Stock:
        """Read everything; Invalid names each offending file."""
        self._check_names([*images, *masks])
        mask_of = self._pair(images, masks)
        for image in images:
            self._read(image, mask_of.get(image.stem))
        if not self._problems:
            self._finish()
        self._refuse_problems()
        return self._stock

    def _refuse_problems(self) -> None:
        if self._problems:
            count, first = len(self._problems), self._problems[0]
            raise Invalid(
                f"{count} problem(s) with the files; first: {first.where} {first.message}",
                self._problems,
            )

    def _problem(self, where: str, message: str) -> None:
        self._problems.append(ProblemItem(where=where, message=message))

    def _check_names(self, files: Sequence[InputFile]) -> None:
        """Refuse at once: such a name could not even be reported with another problem."""
        for file in files:
            if CONTROL.search(file.name):
                self._problem(ascii(file.name), "has a name with characters that cannot be stored")
        self._refuse_problems()

    def _pair(
        self, images: Sequence[InputFile], masks: Sequence[InputFile]
    ) -> dict[str, InputFile]:
        if not images:
            self._problem("images", "there is no image: PNG, TIFF or Zarr")
        stems: set[str] = set()
        for image in images:
            if image.stem in stems:
                self._problem(image.name, "another image has the same name")
            stems.add(image.stem)
        mask_of: dict[str, InputFile] = {}
        for mask in masks:
            if mask.stem in mask_of:
                self._problem(mask.name, "another mask has the same name")
            if mask.stem not in stems:
                self._problem(mask.name, "no image has this name: masks are paired by name")
            mask_of[mask.stem] = mask
        return mask_of

    def _read(self, image: InputFile, mask: InputFile | None) -> None:
        masks = None if mask is None else _Masks(mask, self._max_pixels)
        found = False
        try:
            for name, section in _numbered(image, read_sections(image.file, self._max_pixels)):
                found = True
                self._add(name, section, masks)
            if not found:
                self._problem(image.name, "holds no image")
            if masks is not None and masks.has_more():
                self._problem(masks.name, "holds more masks than its image has sections")
        except ImageError as error:
            self._problem(image.name, str(error))

    def _add(self, name: str, section: Array, masks: "_Masks | None") -> None:
        # Mask first: if both are wrong, both are named.
        mask = None if masks is None else self._mask(name, masks, section)
        try:
            self._check(name, section)
        except ImageError as error:
            raise ImageError(_of_section(name, error)) from error
        if masks is None or mask is not None:
            self._store(name, section, mask)

    def _check(self, name: str, section: Array) -> None:
        check_image(section)
        if self._stock.dtype not in ("", section.dtype.name):
            raise ImageError(f"has dtype {section.dtype.name}, others {self._stock.dtype}")
        self._stock.dtype = section.dtype.name
        digest = hashlib.sha256(np.ascontiguousarray(section).data).hexdigest()
        if digest in self._seen:
            raise ImageError(f"has the same pixels as {self._seen[digest]}")
        self._seen[digest] = name

    def _mask(self, name: str, masks: "_Masks", section: Array) -> NDArray[np.uint8] | None:
        if masks.failed:
            return None
        shape = (section.shape[0], section.shape[1])
        num_classes = len(self._request.class_names)
        try:
            return check_mask(masks.next(), shape, num_classes, self._request.ignore_value)
        except ImageError as error:
            masks.failed = True
            self._problem(masks.name, _of_section(name, error))
            return None

    def _store(self, name: str, section: Array, mask: NDArray[np.uint8] | None) -> None:
        self._check_tiles(section.shape)
        index = len(self._stock.sections)
        self._put(f"images/{index:06d}", section)
        if mask is not None:
            self._put(f"masks/{index:06d}", mask)
        height, width = section.shape
        num_classes = len(self._request.class_names)
        for y0 in range(0, height, _CHUNK_PX):  # in strips: counting takes eight bytes per pixel
            strip = section[y0 : y0 + _CHUNK_PX]
            self._histogram += np.bincount(strip.ravel(), minlength=65536)
        self._stock.sections.append(
            {"name": name, "height": height, "width": width, "has_mask": mask is not None}
        )
        self._digest.update(f"{name}|{section.shape}|{mask is not None}".encode())
        for y0, x0, tile_height, tile_width in tile_windows(height, width, self._request.tile_px):
            window = (slice(y0, y0 + tile_height), slice(x0, x0 + tile_width))
            counts = None if mask is None else class_pixels(mask[window], num_classes).tolist()
            record = TileRecord(index, y0, x0, tile_height, tile_width, counts)
            self._stock.tiles.append(record)

    def _check_tiles(self, shape: tuple[int, ...]) -> None:
        tile_px = self._request.tile_px or max(shape)
        num_tiles = prod(-(-side // tile_px) for side in shape)
        if len(self._stock.tiles) + num_tiles > _MAX_IMAGES:
            self._problem("tile_px", f"makes more than {_MAX_IMAGES} images: take larger tiles")
            self._refuse_problems()

    def _put(self, name: str, array: Array) -> None:
        chunks = (min(_CHUNK_PX, array.shape[0]), min(_CHUNK_PX, array.shape[1]))
        stored = self._group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=chunks)
        # Chunk by chunk: of several at once, Zarr would go on writing after one has failed.
        for y0 in range(0, array.shape[0], chunks[0]):
            for x0 in range(0, array.shape[1], chunks[1]):
                window = (slice(y0, y0 + chunks[0]), slice(x0, x0 + chunks[1]))
                stored[window] = array[window]
        self._digest.update(np.ascontiguousarray(array).data)
        self._stock.num_bytes += array.nbytes

    def _finish(self) -> None:
        self._set_groups()
        self._set_splits()
        self._set_window()
        unsaid = {"groups"} if self._request.groups is None else set()  # as before there were any
        metadata = self._request.model_dump_json(exclude={"folder", "name"} | unsaid)
        self._digest.update(metadata.encode())
        self._stock.digest = self._digest.hexdigest()

    def _set_splits(self) -> None:
        names = [section["name"] for section in self._stock.sections]
        wanted = self._request.splits
        splits: list[Split]
        if wanted is not None:
            try:
                splits = named_splits(names, wanted)
            except ValueError as error:
                self._problem("splits", str(error))
                return
        elif any(section["has_mask"] for section in self._stock.sections):
            groups = [section["group"] for section in self._stock.sections if section["group"]]
            splits = group_splits(names, groups) if groups else block_splits(len(names))
        else:
            splits = ["train"] * len(names)
        for section, split in zip(self._stock.sections, splits, strict=True):
            section["split"] = split

    def _set_groups(self) -> None:
        names = [section["name"] for section in self._stock.sections]
        groups: Sequence[str | None] = [None] * len(names)
        if self._request.groups is not None:
            try:
                groups = named_groups(names, self._request.groups)
            except ValueError as error:
                self._problem("groups", str(error))
                return
        for section, group in zip(self._stock.sections, groups, strict=True):
            section["group"] = group

    def _set_window(self) -> None:
        if self._request.intensity_window is not None:
            self._stock.window = self._request.intensity_window
            return
        cumulative = np.cumsum(self._histogram)
        ranks = [permille * int(cumulative[-1]) for permille in _PERMILLES]
        low, high = np.searchsorted(1000 * cumulative, ranks).tolist()
        if low == high:
            self._problem("intensity_window", f"nearly all pixels are {low}: name the window")
        self._stock.window = (float(low), float(high))


class _Masks:
    """The masks of one image file, taken in step with its sections."""

    def __init__(self, file: InputFile, max_pixels: int) -> None:
        self.name = file.name
        self.failed = False
        self._sections = read_sections(file.file, max_pixels, indexed=True)

    def next(self) -> Array:
        section = next(self._sections, None)
        if section is None:
            raise ImageError("holds fewer masks than its image has sections")
        return section

    def has_more(self) -> bool:
        try:
            return not self.failed and next(self._sections, None) is not None
        except ImageError:
            return True  # something is there, if only a damaged mask


def _of_section(name: str, error: ImageError) -> str:
    """The error, and which section of a stack it is about."""
    return f"section {name}: {error}" if "/" in name else str(error)


def _numbered(image: InputFile, sections: Iterator[Array]) -> Iterator[tuple[str, Array]]:
    """Name sections: a lone one by its file, those of a stack with their number behind."""
    first = next(sections, None)
    if first is None:
        return
    second = next(sections, None)
    if second is None:
        yield image.stem, first
        return
    yield f"{image.stem}/0000", first
    yield f"{image.stem}/0001", second
    for number, section in enumerate(sections, start=2):
        yield f"{image.stem}/{number:04d}", section
