"""Read images and masks once, check them, store them as Zarr, and count what they hold."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from models.data.description import CONTROL, Description
from models.data.images import check_image, check_mask
from models.data.inputs import Input
from models.data.labels import class_pixels
from models.data.readers.limits import Array, ImageError
from models.data.sections import Section, Split
from models.data.splits import block_splits, group_splits, named_groups, named_splits
from models.data.tiles import tile_windows

MAX_SECTION_PIXELS = 1 << 28
"""The most pixels of a section that is read, unless another limit is given."""

_CHUNK_PX = 512
_PERMILLES = (5, 995)
_MAX_IMAGES = 1_000_000


@dataclass(frozen=True)
class Problem:
    """A fault and its place: the name of a file, or a field of the description."""

    where: str
    message: str


class DomainRefused(ValueError):
    """Images, masks and description make no domain; ``problems`` names each thing to mend."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        count, first = len(problems), problems[0]
        super().__init__(f"{count} problem(s) with the files; first: {first.where} {first.message}")
        self.problems = tuple(problems)


@dataclass(frozen=True)
class StoredTile:
    """A window of a section in native pixels, and the pixels of each class if it has a mask."""

    section: int
    y0: int
    x0: int
    height: int
    width: int
    class_pixels: list[int] | None


@dataclass(frozen=True)
class StoredDomain:
    """The sections and tiles of stored images and masks, and what was decided by default.

    ``dtype`` is uint8 or uint16. ``window`` (low, high) holds the grey values that become 0 and 1.
    ``num_bytes`` counts pixels of images and masks before compression. ``digest`` is the SHA-256 of
    pixels, masks and description.
    """

    dtype: str
    window: tuple[float, float]
    sections: tuple[Section, ...]
    tiles: tuple[StoredTile, ...]
    num_bytes: int
    digest: str


def store_domain(
    description: Description,
    images: Sequence[Input],
    masks: Sequence[Input],
    folder: Path,
    *,
    max_pixels: int = MAX_SECTION_PIXELS,
) -> StoredDomain:
    """Check images and masks, and write them to ``folder`` as a Zarr group.

    The group holds ``images/<index>`` (H, W) uint8 or uint16, and ``masks/<index>`` (H, W) uint8:
    the class id of each pixel, 255 where it has none. A mask belongs to the image of the same name.

    Raises:
        DomainRefused: names every file that is wrong, when all have been read.
    """
    return _Intake(description, folder, max_pixels).run(images, masks)


class _Store:
    """The arrays of a domain as they are written, and the sums over all of them."""

    def __init__(self, folder: Path) -> None:
        self._group = zarr.create_group(str(folder))
        self._histogram = np.zeros(65536, dtype=np.int64)
        self.digest = hashlib.sha256()
        self.num_bytes = 0

    def add(self, index: int, name: str, section: Array, mask: NDArray[np.uint8] | None) -> None:
        self._put(f"images/{index:06d}", section)
        if mask is not None:
            self._put(f"masks/{index:06d}", mask)
        for y0 in range(0, section.shape[0], _CHUNK_PX):  # counting takes eight bytes per pixel
            strip = section[y0 : y0 + _CHUNK_PX]
            self._histogram += np.bincount(strip.ravel(), minlength=65536)
        self.digest.update(f"{name}|{section.shape}|{mask is not None}".encode())

    def window(self) -> tuple[float, float]:
        """Return the percentiles of all grey values; ValueError if there is but one value."""
        cumulative = np.cumsum(self._histogram)
        ranks = [permille * int(cumulative[-1]) for permille in _PERMILLES]
        low, high = np.searchsorted(1000 * cumulative, ranks).tolist()
        if low == high:
            raise ValueError(f"nearly all pixels have the grey value {low}: name a window")
        return float(low), float(high)

    def _put(self, name: str, array: Array) -> None:
        chunks = (min(_CHUNK_PX, array.shape[0]), min(_CHUNK_PX, array.shape[1]))
        stored = self._group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=chunks)
        # Chunk by chunk: of several at once, Zarr would go on writing after one has failed.
        for y0 in range(0, array.shape[0], chunks[0]):
            for x0 in range(0, array.shape[1], chunks[1]):
                window = (slice(y0, y0 + chunks[0]), slice(x0, x0 + chunks[1]))
                stored[window] = array[window]
        self.digest.update(np.ascontiguousarray(array).data)
        self.num_bytes += array.nbytes


class _Intake:
    """The intake of a domain, section by section: every problem is collected before it refuses."""

    def __init__(self, description: Description, folder: Path, max_pixels: int) -> None:
        self._description = description
        self._max_pixels = max_pixels
        self._store = _Store(folder)
        self._problems: list[Problem] = []
        self._seen: dict[str, str] = {}
        self._dtype = ""
        self._window = (0.0, 1.0)
        self._sections: list[Section] = []
        self._tiles: list[StoredTile] = []

    def run(self, images: Sequence[Input], masks: Sequence[Input]) -> StoredDomain:
        self._check_names([*images, *masks])
        mask_of = self._pair(images, masks)
        for image in images:
            self._read(image, mask_of.get(image.stem))
        if not self._problems:
            self._decide()
        self._refuse_problems()
        return StoredDomain(
            dtype=self._dtype,
            window=self._window,
            sections=tuple(self._sections),
            tiles=tuple(self._tiles),
            num_bytes=self._store.num_bytes,
            digest=self._store.digest.hexdigest(),
        )

    def _refuse_problems(self) -> None:
        if self._problems:
            raise DomainRefused(self._problems)

    def _problem(self, where: str, message: str) -> None:
        self._problems.append(Problem(where, message))

    def _check_names(self, inputs: Sequence[Input]) -> None:
        """Refuse at once names that cannot be stored: a later report could not hold them."""
        for given in inputs:
            if CONTROL.search(given.name):
                message = "has a name with control characters, which cannot be stored: rename it"
                self._problem(ascii(given.name), message)
        self._refuse_problems()

    def _pair(self, images: Sequence[Input], masks: Sequence[Input]) -> dict[str, Input]:
        if not images:
            self._problem("images", "there is no image: give PNG, TIFF or Zarr files")
        stems: set[str] = set()
        for image in images:
            if image.stem in stems:
                self._problem(image.name, "another image has the same name: rename one of them")
            stems.add(image.stem)
        mask_of: dict[str, Input] = {}
        for mask in masks:
            if mask.stem in mask_of:
                self._problem(mask.name, "another mask has the same name: rename one of them")
            if mask.stem not in stems:
                self._problem(mask.name, "no image has this name: name a mask as its image")
            mask_of[mask.stem] = mask
        return mask_of

    def _read(self, image: Input, mask: Input | None) -> None:
        masks = None if mask is None else _Masks(mask, self._max_pixels)
        found = False
        try:
            for name, section in _numbered(image.stem, image.sections(self._max_pixels)):
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
            self._keep(name, section, mask)

    def _check(self, name: str, section: Array) -> None:
        check_image(section)
        if self._dtype not in ("", section.dtype.name):
            raise ImageError(
                f"has the dtype {section.dtype.name} and other images have {self._dtype}: all "
                "images of a dataset need the same dtype"
            )
        self._dtype = section.dtype.name
        digest = hashlib.sha256(np.ascontiguousarray(section).data).hexdigest()
        if digest in self._seen:
            # A copy could be trained on and tested on.
            raise ImageError(f"has the same pixels as {self._seen[digest]}: give each image once")
        self._seen[digest] = name

    def _mask(self, name: str, masks: "_Masks", section: Array) -> NDArray[np.uint8] | None:
        if masks.failed:
            return None
        shape = (section.shape[0], section.shape[1])
        num_classes = len(self._description.class_names)
        try:
            return check_mask(masks.next(), shape, num_classes, self._description.ignore_value)
        except ImageError as error:
            masks.failed = True
            self._problem(masks.name, _of_section(name, error))
            return None

    def _keep(self, name: str, section: Array, mask: NDArray[np.uint8] | None) -> None:
        self._check_tiles(section.shape)
        index, (height, width) = len(self._sections), section.shape
        self._store.add(index, name, section, mask)
        self._sections.append(Section(index, name, "train", height, width, mask is not None))
        num_classes = len(self._description.class_names)
        for y0, x0, rows, cols in tile_windows(height, width, self._description.tile_px):
            counts = None
            if mask is not None:
                window = mask[y0 : y0 + rows, x0 : x0 + cols]
                counts = class_pixels(window, num_classes).tolist()
            self._tiles.append(StoredTile(index, y0, x0, rows, cols, counts))

    def _check_tiles(self, shape: tuple[int, ...]) -> None:
        tile_px = self._description.tile_px or max(shape)
        num_tiles = prod(-(-side // tile_px) for side in shape)
        if len(self._tiles) + num_tiles > _MAX_IMAGES:
            self._problem("tile_px", f"gives more than {_MAX_IMAGES} tiles: take larger tiles")
            self._refuse_problems()

    def _decide(self) -> None:
        """Set groups, splits and the window, as described or by default, from all sections."""
        for where, decide in (
            ("groups", self._set_groups),
            ("splits", self._set_splits),
            ("intensity_window", self._set_window),
        ):
            try:
                decide()
            except ValueError as error:
                self._problem(where, str(error))
        said = set(Description.model_fields)
        if self._description.groups is None:
            said.remove("groups")  # so that digests made before there were groups stay
        self._store.digest.update(self._description.model_dump_json(include=said).encode())

    def _set_groups(self) -> None:
        if self._description.groups is None:
            return
        names = [section.name for section in self._sections]
        groups = named_groups(names, self._description.groups)
        self._sections = [
            replace(section, group=group)
            for section, group in zip(self._sections, groups, strict=True)
        ]

    def _set_splits(self) -> None:
        names = [section.name for section in self._sections]
        splits: list[Split] = ["train"] * len(names)
        if self._description.splits is not None:
            splits = named_splits(names, self._description.splits)
        elif any(section.has_mask for section in self._sections):
            groups = [section.group for section in self._sections if section.group]
            splits = group_splits(names, groups) if groups else block_splits(len(names))
        self._sections = [
            replace(section, split=split)
            for section, split in zip(self._sections, splits, strict=True)
        ]

    def _set_window(self) -> None:
        self._window = self._description.intensity_window or self._store.window()


class _Masks:
    """The masks of one image, taken in step with its sections."""

    def __init__(self, given: Input, max_pixels: int) -> None:
        self.name = given.name
        self.failed = False
        self._sections = given.sections(max_pixels, indexed=True)

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
    """Return the error's words, with the section's name if it is one of a stack."""
    return f"section {name}: {error}" if "/" in name else str(error)


def _numbered(stem: str, sections: Iterator[Array]) -> Iterator[tuple[str, Array]]:
    """Yield sections with names: the stem, and for those of a stack their number after it."""
    first = next(sections, None)
    if first is None:
        return
    second = next(sections, None)
    if second is None:
        yield stem, first
        return
    yield f"{stem}/0000", first
    yield f"{stem}/0001", second
    for number, section in enumerate(sections, start=2):
        yield f"{stem}/{number:04d}", section
