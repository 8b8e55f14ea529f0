"""The parts of crops that carry image-level labels, and the positions at which they are pooled.

A *region* of a crop is the part of a tile that the crop shows. A grid of squares is laid over the
crop; a *position* of a region is the part of one square that lies in the region.

Legend: B batch, C classes, S side of the crop, R regions, P positions, G squares along a side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.data.domain import IGNORE, Domain
from models.data.labels import PRESENT, UNKNOWN, class_pixels, labels_of_mask
from models.data.samples import Crop

RegionMap = tuple[NDArray[np.int64], NDArray[np.int64]]
"""A crop's regions: the region of each pixel (S, S), or -1; and labels (R, C) in {-1, 0, 1}."""


@dataclass(frozen=True)
class Regions:
    """The regions of a batch of crops, at their positions.

    ``labels`` is (R, C) in {-1, 0, 1}, int64. ``sizes`` (R, P) float32 counts the pixels of each
    position; 0 fills up regions with fewer than P positions. ``squares`` (R, P) holds the square of
    each position, as a flat index into (B, G, G). ``positions`` (B, S, S) holds the position of
    each pixel, as a flat index into (R, P), and R * P for a pixel in no region.
    """

    labels: NDArray[np.int64]
    sizes: NDArray[np.float32]
    squares: NDArray[np.int64]
    positions: NDArray[np.int64]
    pool_px: int

    @classmethod
    def of(cls, crops: Sequence[RegionMap], pool_px: int) -> Self:
        """Number the positions on a grid of squares of ``pool_px``, from the crop's first pixel."""
        labels = np.concatenate([of_crop for _, of_crop in crops])
        before = np.cumsum([0, *(len(of_crop) for _, of_crop in crops)])
        maps = np.stack(
            [np.where(m < 0, -1, m + n) for (m, _), n in zip(crops, before, strict=False)]
        )
        number, side = len(labels), grid_side(maps.shape[-1], pool_px)
        along = np.arange(maps.shape[-1]) // pool_px
        square = along[:, None] * side + along  # (S, S)
        inside = maps >= 0
        at = (maps * side**2 + square)[inside]
        counts = np.bincount(at, minlength=number * side**2).reshape(number, side**2)
        # A region counts only the squares that it touches, so that P stays small.
        place = np.cumsum(counts > 0, axis=1) - 1
        width = max(1, int(place.max(initial=0)) + 1)
        region, used = np.nonzero(counts)
        sizes = np.zeros((number, width), np.float32)
        sizes[region, place[region, used]] = counts[region, used]
        crop_of = np.repeat(np.arange(len(crops)), np.diff(before))
        squares = np.zeros((number, width), np.int64)
        squares[region, place[region, used]] = crop_of[region] * side**2 + used
        positions = np.full(maps.shape, number * width)
        positions[inside] = maps[inside] * width + place.ravel()[at]
        return cls(labels, sizes, squares, positions, pool_px)


def grid_side(side_px: int, pool_px: int) -> int:
    """Count the squares along a side of a crop; the last may stick out."""
    return -(-side_px // pool_px)


def tiles_of(domain: Domain, crop: Crop) -> RegionMap:
    """Return the tiles in a crop; of two that overlap the later prevails, as in ``Domain.allowed``.

    If the crop or a later tile cuts a tile, its present classes become unknown: they may lie in the
    part that is missing. Its absent classes are absent in every part.
    """
    tiles, shape = domain.tile_windows(crop.section), domain.working_shape(crop.section)
    top, bottom, _ = crop.rows.indices(shape[0])
    left, right, _ = crop.cols.indices(shape[1])
    inside = tiles.touching(top, bottom, left, right)
    window = np.full((bottom - top, right - left), -1)
    # In order, so that a later tile paints over an earlier one.
    for region, (y0, y1, x0, x1) in enumerate(tiles.edges[inside]):
        window[max(y0 - top, 0) : y1 - top, max(x0 - left, 0) : x1 - left] = region
    seen = np.bincount(window[window >= 0], minlength=len(inside))
    y0, y1, x0, x1 = tiles.edges[inside].T
    cut = seen < (y1 - y0) * (x1 - x0)
    labels = tiles.labels[inside]
    labels = np.where(cut[:, None] & (labels == PRESENT), UNKNOWN, labels)
    renumbered = np.append(np.cumsum(seen > 0) - 1, -1)  # without those that nothing is seen of
    return crop.completed(renumbered[window], fill=-1), labels[seen > 0]


def labelled_crop(mask: NDArray[np.int64], num_classes: int) -> RegionMap:
    """Return one region with the classes that a crop of the source shows, by its mask (S, S).

    Pixels without a class, such as padding, are in no region; a crop of such pixels has none. Only
    present classes of the source are read, so a class that was not annotated may be called absent.
    """
    known = mask != IGNORE
    labels = np.array([labels_of_mask(class_pixels(mask, num_classes))])
    return np.where(known, 0, -1), labels[: int(known.any())]
