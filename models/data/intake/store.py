"""The store of a domain: its arrays as they are written, and what is known of them afterwards."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from models.data.intake.findings import Note
from models.data.intake.grey_values import Histogram
from models.data.intake.padding import DataField
from models.data.intake.section_arrays import write_array
from models.data.readers.limits import Array
from models.data.sections import Section
from models.data.tiles import num_tiles, tile_windows


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
class StoredTiles:
    """The tiles of all sections, in order; each is made when it is asked for.

    A million tiles as objects would take hundreds of megabytes. ``counts`` has an entry for each
    section: the pixels of each class in its tiles (tiles, C) uint32, or None without a mask. A tile
    that lies wholly outside the data of its section, in ``fields`` by the section's index, is left
    out.
    """

    tile_px: int | None
    sections: tuple[Section, ...]
    counts: tuple[NDArray[np.uint32] | None, ...] = field(compare=False)  # the digest tells them
    fields: Mapping[int, DataField] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(self._num_tiles, self.sections))

    def _num_tiles(self, section: Section) -> int:
        data = self.fields.get(section.index)
        if self.tile_px is None or data is None:
            return num_tiles(section.height, section.width, self.tile_px)
        rows = -(-data.y1 // self.tile_px) - data.y0 // self.tile_px
        return rows * (-(-data.x1 // self.tile_px) - data.x0 // self.tile_px)

    def __iter__(self) -> Iterator[StoredTile]:
        for section, counts in zip(self.sections, self.counts, strict=True):
            windows = tile_windows(section.height, section.width, self.tile_px)
            of_tiles = repeat(None) if counts is None else iter(counts.tolist())
            data = self.fields.get(section.index)
            for window, pixels in zip(windows, of_tiles, strict=False):
                if data is None or data.touches(*window):
                    yield StoredTile(section.index, *window, pixels)

    def num_of_sections(self) -> list[int]:
        """Return the number of tiles of each section."""
        return [self._num_tiles(section) for section in self.sections]

    def without(self, num_classes: int) -> list[int]:
        """Return for each class the number of tiles with a mask that have no pixel of it."""
        total = np.zeros(num_classes, np.int64)
        for section, counts in zip(self.sections, self.counts, strict=True):
            if counts is not None:
                total += (counts[self._kept(section)] == 0).sum(axis=0)
        return total.tolist()

    def _kept(self, section: Section) -> NDArray[np.bool_]:
        """Tell of each tile of a section whether it has a pixel of data: (tiles,)."""
        data, side = self.fields.get(section.index), self.tile_px
        if data is None or side is None:
            return np.ones(num_tiles(section.height, section.width, side), bool)
        tops, lefts = np.arange(0, section.height, side), np.arange(0, section.width, side)
        rows = (tops < data.y1) & (tops + side > data.y0)
        return np.logical_and.outer(rows, (lefts < data.x1) & (lefts + side > data.x0)).ravel()

    def of_sections(self) -> list[list[int] | None]:
        """Return the pixels of each class in each section; None for a section without a mask."""
        return [
            None if counts is None else counts.sum(axis=0, dtype=np.int64).tolist()
            for counts in self.counts
        ]


@dataclass(frozen=True)
class StoredDomain:
    """The sections and tiles of stored images and masks, and what was decided by default.

    ``dtype`` is that of the image files. ``pixel_size_nm`` is that of sections without one of their
    own, and ``pixel_size_from`` says who gave it. ``window`` holds the grey values that become 0
    and 1; of inverted images the first is the larger one. ``histogram`` counts the pixels that are
    data. ``num_bytes`` counts pixels of images and masks before compression. ``digest`` is the
    SHA-256 of pixels, masks and description; ``pixels_digest`` that of the images' pixels alone.
    ``notes`` tell what was left out, chosen, or looks wrong.
    """

    dtype: str
    pixel_size_nm: float
    pixel_size_from: Literal["request", "file"]
    window: tuple[float, float]
    sections: tuple[Section, ...]
    tiles: StoredTiles
    num_bytes: int
    digest: str
    pixels_digest: str
    histogram: Histogram | None
    notes: tuple[Note, ...] = ()


class SectionStore:
    """The arrays of a domain as they are written, and the sums over all of them."""

    def __init__(self, folder: Path) -> None:
        self._group = zarr.create_group(str(folder))
        self._group.create_group("images")
        self._folder = folder
        self.digest = hashlib.sha256()
        self.num_bytes = 0
        self._masked: set[int] = set()

    def add(self, index: int, name: str, section: Array, mask: NDArray[np.uint8] | None) -> None:
        """Take a section and its mask into the sums; they are written by ``write``."""
        if mask is not None and not self._masked:
            self._group.create_group("masks")
        for array in (section,) if mask is None else (section, mask):
            self.digest.update(np.ascontiguousarray(array).data)
            self.num_bytes += array.nbytes
        if mask is not None:
            self._masked.add(index)
        self.digest.update(f"{name}|{section.shape}|{mask is not None}".encode())

    def write(self, index: int, section: Array, mask: NDArray[np.uint8] | None) -> None:
        """Write a section that was added, and its mask; several threads may write some."""
        write_array(self._folder / f"images/{index:06d}", section)
        if mask is not None:
            write_array(self._folder / f"masks/{index:06d}", mask)

    def read(self, index: int) -> tuple[Array, NDArray[np.uint8] | None]:
        """Return the stored section (H, W) and its mask, if it has one."""
        image = np.asarray(self._group[f"images/{index:06d}"])
        return image, self.mask(index) if index in self._masked else None

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the stored mask (H, W) of a section."""
        return np.asarray(self._group[f"masks/{index:06d}"], dtype=np.uint8)

    def replace_in_masks(self, old: int, new: int) -> None:
        """Give all pixels of all masks that have the class id ``old`` the class id ``new``."""
        for index in sorted(self._masked):
            mask = self.mask(index)
            path = self._folder / f"masks/{index:06d}"
            write_array(path, np.where(mask == old, np.uint8(new), mask))
        self.digest.update(f"{old} in masks is {new}|".encode())
