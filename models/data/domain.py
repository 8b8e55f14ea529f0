"""A dataset as training sees it: sections at the working pixel size, read on demand.

A *section* is one micrograph; a *tile* is a window of it that carries image-level labels of its
own. Training reads whole sections, so a crop keeps its context across tile borders, and every pixel
is filtered by the labels of the tile it lies in (Eq. 3, tile by tile).
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from models.data.labels import ABSENT, UNKNOWN
from models.data.sections import Section, Split

IGNORE = 255
"""The mask value of pixels without a class, which take part in no loss, label or score."""

A = TypeVar("A", bound=NDArray[np.generic])

MIN_WORKING_PX = 16
"""The fewest pixels a side to which a section may be shrunk."""

CACHE_BYTES = 512 << 20
"""The memory of a domain's cache: 100 sections of 1024 x 1024 pixels with their masks."""


@dataclass(frozen=True)
class Point:
    """A pixel of a section of which somebody said that it is of a class, or is not.

    ``y`` and ``x`` count from 0 at the top left; ``number`` is the class id.
    """

    y: int
    x: int
    number: int
    present: bool


@dataclass(frozen=True)
class Tile:
    """A window of a section in native pixels; ``labels`` has a code (``labels.py``) per class.

    ``points`` lie in the window, and count in native pixels of the section.
    """

    section: int
    y0: int
    x0: int
    height: int
    width: int
    labels: tuple[int, ...]
    points: tuple[Point, ...] = ()

    @property
    def labelled(self) -> bool:
        """Tell whether the label of at least one class is known."""
        return any(label != UNKNOWN for label in self.labels)


@dataclass(frozen=True)
class DomainInfo:
    """The facts that hold for all sections: ordered classes, pixel size, and intensity window.

    ``digest`` identifies the content: images, masks, and what was registered with them.
    ``intensity_window`` holds the stored grey values that become 0 and 1; others are clipped. Of
    inverted images the first is the larger one. It is fixed at registration, so that training and
    prediction normalise alike.
    """

    name: str
    class_names: tuple[str, ...]
    pixel_size_nm: float
    intensity_window: tuple[float, float]
    digest: str
    class_ids: tuple[int, ...] | None = None
    """The class id that each id in the stored masks stands for; None if all stay."""


class Domain:
    """A read-only view of a dataset's store at ``working_nm`` nanometres per pixel.

    ``store`` is a Zarr group with an array ``images/<index>`` (H, W) of integers or float32 per
    section, and ``masks/<index>`` (H, W) uint8 where it has a mask: class ids, 255 without a class.
    ``sections`` and ``tiles`` count in native pixels, as stored; ``image``, ``mask``, ``allowed``
    and ``tile_windows`` in pixels of the working size, which networks see. Without ``working_nm``
    both are the same.

    A section is read when it is asked for. Those used last stay in memory, up to 512 MiB.
    """

    def __init__(
        self,
        store: Path,
        info: DomainInfo,
        sections: Sequence[Section],
        tiles: Sequence[Tile],
        *,
        working_nm: float | None = None,
    ) -> None:
        self.store = store
        self.info = info
        self.sections = tuple(sections)
        self.tiles = tuple(tiles)
        self.working_nm = working_nm or info.pixel_size_nm
        self._group = zarr.open_group(str(store), mode="r")
        self._cache = ArrayCache(CACHE_BYTES)
        self._labels: dict[int, list[Tile]] = {}
        for tile in self.tiles:
            self._labels.setdefault(tile.section, []).append(tile)
        self._windows: dict[int, TileWindows] = {}

    @property
    def num_classes(self) -> int:
        return len(self.info.class_names)

    def at(self, working_nm: float) -> "Domain":
        """Return the same dataset at another working pixel size."""
        return Domain(self.store, self.info, self.sections, self.tiles, working_nm=working_nm)

    def split(self, name: Split, *, masked: bool = False) -> tuple[Section, ...]:
        """Return the sections of a split; only those with a mask if ``masked``."""
        return tuple(s for s in self.sections if s.split == name and (s.has_mask or not masked))

    def training_sections(self, *, masked: bool = False) -> tuple[Section, ...]:
        """Return ``split("train")``.

        Raises:
            ValueError: there is no such section.
        """
        sections = self.split("train", masked=masked)
        if not sections:
            what = "training sections with masks" if masked else "training sections"
            raise ValueError(
                f"dataset {self.info.name!r} has no {what}: name other sections in splits"
                + (", or add masks" if masked else "")
            )
        return sections

    def labelled_tiles(self, splits: Collection[Split]) -> list[Tile]:
        """Return the tiles of some splits' sections that have a known label, in order."""
        sections = {section.index for section in self.sections if section.split in splits}
        return [tile for tile in self.tiles if tile.section in sections and tile.labelled]

    def working_shape(self, section: Section) -> tuple[int, int]:
        """Return the shape (H, W) of a section at the working pixel size."""
        return working_shape(
            (section.height, section.width), self.pixel_size(section), self.working_nm
        )

    def pixel_size(self, section: Section) -> tuple[float, float]:
        """Return the size of a section's pixels along y and x, in nanometres, as stored."""
        return section.pixel_size_nm or (self.info.pixel_size_nm, self.info.pixel_size_nm)

    def image(self, section: Section) -> NDArray[np.float32]:
        """Return the section (H, W), float32 in [0, 1], at the working pixel size; read-only."""
        return self._cache.get(("image", section.index), lambda: self._read_image(section))

    def mask(self, section: Section) -> NDArray[np.uint8]:
        """Return the class ids (H, W), uint8, 255 for none, at the working size; read-only."""
        return self._cache.get(("mask", section.index), lambda: self._read_mask(section))

    def window(self, section: Section) -> tuple[float, float]:
        """Return the grey values of a section that become 0 and 1."""
        return section.intensity_window or self.info.intensity_window

    def native_image(self, section: Section) -> NDArray[np.generic]:
        """Return the section (H, W), in the dtype of the image files, as stored."""
        return np.asarray(self._group[f"images/{section.index:06d}"])

    def native_mask(self, section: Section) -> NDArray[np.uint8]:
        """Return the class ids (H, W), uint8, 255 for none, at the size that is stored.

        Raises:
            ValueError: the section has no mask.
        """
        if not section.has_mask:
            raise ValueError(f"section {section.name!r} of {self.info.name!r} has no mask")
        stored = np.asarray(self._group[f"masks/{section.index:06d}"], dtype=np.uint8)
        if self.info.class_ids is None:
            return stored
        ids = np.full(256, IGNORE, np.uint8)
        ids[: len(self.info.class_ids)] = self.info.class_ids
        return ids[stored]

    def allowed(
        self, section: Section, rows: slice = slice(None), cols: slice = slice(None)
    ) -> NDArray[np.bool_]:
        """Return the classes that each pixel of a window may have by Eq. 3: bool (C, H, W).

        A class is False where the label of the pixel's tile calls it absent; an unknown class is
        allowed. Where all classes are absent nothing is allowed, and the pixel takes no part in the
        target loss.
        """
        height, width = self.working_shape(section)
        top, bottom, _ = rows.indices(height)
        left, right, _ = cols.indices(width)
        allowed = np.ones((self.num_classes, bottom - top, right - left), dtype=bool)
        tiles = self.tile_windows(section)
        for number in tiles.touching(top, bottom, left, right):
            y0, y1, x0, x1 = tiles.edges[number]
            window = (slice(max(y0 - top, 0), y1 - top), slice(max(x0 - left, 0), x1 - left))
            allowed[:, *window] = (tiles.labels[number] != ABSENT)[:, None, None]
        return allowed

    def tile_windows(self, section: Section) -> "TileWindows":
        """Return the tiles of a section at the working pixel size."""
        if section.index not in self._windows:  # every crop of a section asks for them
            self._windows[section.index] = self._tile_windows(section)
        return self._windows[section.index]

    def points(self, section: Section) -> tuple[Point, ...]:
        """Return the points of a section at the working pixel size: the pixels that hold them."""
        tiles = self._labels.get(section.index, [])
        height, width = self.working_shape(section)
        return tuple(
            replace(
                point,
                y=int((point.y + 0.5) * height / section.height),
                x=int((point.x + 0.5) * width / section.width),
            )
            for tile in tiles
            for point in tile.points
        )

    def _read_image(self, section: Section) -> NDArray[np.float32]:
        grey = normalise(self.native_image(section), self.window(section))
        return _frozen(resample_image(grey, self.working_shape(section)))

    def _read_mask(self, section: Section) -> NDArray[np.uint8]:
        return _frozen(resample_mask(self.native_mask(section), self.working_shape(section)))

    def _tile_windows(self, section: Section) -> "TileWindows":
        height, width = self.working_shape(section)
        # Not the ratio of pixel sizes: the shape was rounded, and tiles must fill it.
        scale_y, scale_x = height / section.height, width / section.width
        tiles = self._labels.get(section.index, [])
        edges = [
            (
                round(tile.y0 * scale_y),
                round((tile.y0 + tile.height) * scale_y),
                round(tile.x0 * scale_x),
                round((tile.x0 + tile.width) * scale_x),
            )
            for tile in tiles
        ]
        labels = np.array([tile.labels for tile in tiles]).reshape(-1, self.num_classes)
        return TileWindows(np.array(edges, dtype=np.int64).reshape(-1, 4), labels.astype(np.int64))


@dataclass(frozen=True)
class TileWindows:
    """The T tiles of a section at the working size: ``edges`` (T, 4) are y0, y1, x0, x1.

    ``labels`` (T, C) are -1 (unknown), 0 (absent) or 1 (present).
    """

    edges: NDArray[np.int64]
    labels: NDArray[np.int64]

    def touching(self, top: int, bottom: int, left: int, right: int) -> NDArray[np.intp]:
        """Return the numbers of the tiles that touch a window, in order: later ones prevail."""
        y0, y1, x0, x1 = self.edges.T
        return np.flatnonzero((y0 < bottom) & (y1 > top) & (x0 < right) & (x1 > left))


class ArrayCache:
    """The arrays that were used last: ``budget`` bytes in all, or one array that is larger."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._arrays: OrderedDict[tuple[str, int], NDArray[Any]] = OrderedDict()
        self._lock = Lock()  # batches are prepared in a thread while validation reads
        self.num_bytes = 0

    def get(self, key: tuple[str, int], read: Callable[[], A]) -> A:
        with self._lock:
            return self._get(key, read)

    def _get(self, key: tuple[str, int], read: Callable[[], A]) -> A:
        if key in self._arrays:
            self._arrays.move_to_end(key)
            return cast(A, self._arrays[key])
        array = read()
        self.num_bytes += array.nbytes
        while self._arrays and self.num_bytes > self._budget:
            self.num_bytes -= self._arrays.popitem(last=False)[1].nbytes
        self._arrays[key] = array
        return array


def working_shape(
    shape: tuple[int, int], pixel_size_nm: float | tuple[float, float], working_nm: float
) -> tuple[int, int]:
    """Return the shape (H, W) that resampling to ``working_nm`` gives; no side is less than 1.

    ``pixel_size_nm`` is the size along both axes, or along y and x.
    """
    sizes = pixel_size_nm if isinstance(pixel_size_nm, tuple) else (pixel_size_nm, pixel_size_nm)
    height, width = (
        max(1, round(side * (nm / working_nm))) for side, nm in zip(shape, sizes, strict=True)
    )
    return height, width


def shows_nothing(native: tuple[int, int], working: tuple[int, int]) -> bool:
    """Tell whether a section shrinks to fewer pixels a side than show any structure."""
    return any(new < old and new < MIN_WORKING_PX for old, new in zip(native, working, strict=True))


def normalise(image: NDArray[np.generic], window: tuple[float, float]) -> NDArray[np.float32]:
    """Map grey values from ``window`` to [0, 1], clipped; float32.

    The first value of the window becomes 0 and the second 1, whichever is larger.
    """
    low, high = window
    if image.dtype.name in ("uint32", "int32"):  # float32 does not hold all of their values
        image, low, high = image.astype(np.float64) - low, 0.0, high - low
    scaled = (image.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    clipped: NDArray[np.float32] = np.clip(scaled, 0.0, 1.0, dtype=np.float32)
    return clipped


def resample_image(image: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resample (H, W) float32 to ``shape``; anti-aliased when shrinking (bilinear support)."""
    if image.shape == shape:
        return image
    # Pillow gives a shape as (width, height).
    resized = Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def resample_mask(mask: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Resample a class map (H, W) to ``shape`` by area majority; 255 counts as a class."""
    if mask.shape == shape:
        return mask
    values = np.unique(mask)
    # Each class by its share of the area: an id between two ids would be another class.
    shares = [
        np.asarray(
            Image.fromarray((mask == value).astype(np.float32)).resize(
                (shape[1], shape[0]), Image.Resampling.BOX
            )
        )
        for value in values
    ]
    majority: NDArray[np.uint8] = values[np.argmax(np.stack(shares), axis=0)].astype(np.uint8)
    return majority


def _frozen(array: A) -> A:
    array.setflags(write=False)  # cached arrays are shared between callers
    return array
