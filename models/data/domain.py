"""A registered dataset as training sees it: sections at the working pixel size, on demand.

A *section* is one micrograph; a *tile* is a window of it that carries image-level labels of its
own. Training reads whole sections, so a crop keeps its context across tile borders, and every pixel
is filtered by the labels of the tile it lies in (Eq. 3, tile by tile).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

IGNORE = 255
"""Mask value of pixels without a class: left out of every loss, label and score."""

UNKNOWN, ABSENT, PRESENT = -1, 0, 1
"""Image-level label of one class in one tile."""

Split = Literal["train", "val", "test", "unused"]

A = TypeVar("A", bound=NDArray[np.generic])

_CACHED_SECTIONS = 48  # bounds memory: 48 sections of 1024 px are about 250 MB with their masks


@dataclass(frozen=True)
class Section:
    """One micrograph: its place in the store, size in native pixels, and split."""

    index: int
    name: str
    split: Split
    height: int
    width: int
    has_mask: bool


@dataclass(frozen=True)
class Tile:
    """A window of a section, native pixels; ``labels`` is one of -1, 0, 1 per class."""

    section: int
    y0: int
    x0: int
    height: int
    width: int
    labels: tuple[int, ...]


@dataclass(frozen=True)
class DomainInfo:
    """What holds for all sections: ordered classes, pixel size, and the intensity window.

    ``intensity_window`` (low, high) maps stored grey values to [0, 1] and clips; it is fixed at
    registration so that training and prediction normalise alike.
    """

    name: str
    class_names: tuple[str, ...]
    pixel_size_nm: float
    intensity_window: tuple[float, float]


class Domain:
    """Read-only view of a dataset's store at ``working_nm`` nanometres per pixel."""

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
        self._image = lru_cache(_CACHED_SECTIONS)(self._read_image)
        self._mask = lru_cache(_CACHED_SECTIONS)(self._read_mask)
        self._allowed = lru_cache(_CACHED_SECTIONS)(self._make_allowed)

    @property
    def num_classes(self) -> int:
        return len(self.info.class_names)

    def split(self, name: Split, *, masked: bool = False) -> tuple[Section, ...]:
        """Sections of a split; only those with a mask when ``masked``."""
        return tuple(s for s in self.sections if s.split == name and (s.has_mask or not masked))

    def training_sections(self, *, masked: bool = False) -> tuple[Section, ...]:
        """``split("train")``, of which there must be at least one."""
        sections = self.split("train", masked=masked)
        if not sections:
            what = "training sections with masks" if masked else "training sections"
            raise ValueError(f"dataset {self.info.name!r} has no {what}")
        return sections

    def working_shape(self, section: Section) -> tuple[int, int]:
        """(H, W) of a section at the working pixel size."""
        return working_shape(
            (section.height, section.width), self.info.pixel_size_nm, self.working_nm
        )

    def image(self, section: Section) -> NDArray[np.float32]:
        """(H, W) float32 in [0, 1] at the working pixel size; read-only."""
        return self._image(section)

    def mask(self, section: Section) -> NDArray[np.uint8]:
        """(H, W) uint8 class index or 255 at the working pixel size; read-only."""
        return self._mask(section)

    def native_image(self, section: Section) -> NDArray[np.generic]:
        """(H, W) uint8 or uint16 as stored."""
        return np.asarray(self._group[f"images/{section.index:06d}"])

    def native_mask(self, section: Section) -> NDArray[np.uint8]:
        """(H, W) uint8 class index or 255 as stored; ValueError if the section has none."""
        if not section.has_mask:
            raise ValueError(f"section {section.name!r} of {self.info.name!r} has no mask")
        return np.asarray(self._group[f"masks/{section.index:06d}"], dtype=np.uint8)

    def allowed(self, section: Section) -> NDArray[np.bool_]:
        """(C, H, W): may a pseudo-label take this class here? False where labelled absent.

        Unknown allows. Where all classes are absent nothing is allowed, and the pixel takes no part
        in the target loss.
        """
        return self._allowed(section)

    def _read_image(self, section: Section) -> NDArray[np.float32]:
        grey = normalise(self.native_image(section), self.info.intensity_window)
        return _frozen(resample_image(grey, self.working_shape(section)))

    def _read_mask(self, section: Section) -> NDArray[np.uint8]:
        return _frozen(resample_mask(self.native_mask(section), self.working_shape(section)))

    def _make_allowed(self, section: Section) -> NDArray[np.bool_]:
        height, width = self.working_shape(section)
        scale_y, scale_x = height / section.height, width / section.width
        allowed = np.ones((self.num_classes, height, width), dtype=bool)
        for tile in self.tiles:
            if tile.section == section.index:
                rows = slice(round(tile.y0 * scale_y), round((tile.y0 + tile.height) * scale_y))
                cols = slice(round(tile.x0 * scale_x), round((tile.x0 + tile.width) * scale_x))
                absent = np.asarray(tile.labels) == ABSENT
                allowed[:, rows, cols] = ~absent[:, None, None]
        return _frozen(allowed)


def working_shape(
    shape: tuple[int, int], pixel_size_nm: float, working_nm: float
) -> tuple[int, int]:
    """Shape (H, W) of an image of ``pixel_size_nm`` resampled to ``working_nm``; at least 1."""
    scale = pixel_size_nm / working_nm
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def normalise(image: NDArray[np.generic], window: tuple[float, float]) -> NDArray[np.float32]:
    """Map grey values from ``window`` (low, high) to [0, 1], clipped; float32."""
    low, high = window
    scaled = (image.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    clipped: NDArray[np.float32] = np.clip(scaled, 0.0, 1.0, dtype=np.float32)
    return clipped


def resample_image(image: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resample (H, W) float32 to ``shape``; anti-aliased when shrinking (bilinear support)."""
    if image.shape == shape:
        return image
    resized = Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def resample_mask(mask: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Resample a class map (H, W) to ``shape`` by area majority; 255 counts as a class."""
    if mask.shape == shape:
        return mask
    values = np.unique(mask)
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
