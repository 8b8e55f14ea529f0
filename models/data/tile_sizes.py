"""Measure in how many tiles of several sizes each class lies, and suggest a size for labelling.

A label says little of a class that is in nearly all tiles, or in nearly none. Legend: C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from models.data.labels import present_classes
from models.data.sections import Section

TILE_SIZES_PX = (64, 128, 256, 512)

TELLING = (0.3, 0.6)
"""The shares of tiles between which a class should lie."""

MAX_BLOCKS = 512
"""The most blocks of 512 x 512 pixels that are read; of larger masks a random choice is read."""

_MIDDLE = sum(TELLING) / 2
_MOST_CHANGE = 4.0
_FINEST_PX, _BLOCK_PX = TILE_SIZES_PX[0], TILE_SIZES_PX[-1]
_PER_SIDE = _BLOCK_PX // _FINEST_PX


@dataclass(frozen=True)
class TileSize:
    """Tiles of one size: ``shares`` (C) of the ``num_tiles`` tiles show each class, in [0, 1].

    A tile whose mask ignores every pixel does not count.
    """

    tile_px: int
    num_tiles: int
    shares: tuple[float, ...]


@dataclass(frozen=True)
class TileSizes:
    """The tiles of all sizes, and the size at which most classes lie in ``TELLING``, if any does.

    ``read`` is the share of the masks' blocks that was read, in (0, 1].
    """

    sizes: tuple[TileSize, ...]
    suggested_px: int | None
    read: float


def tile_sizes(
    store: Path,
    sections: Sequence[Section],
    num_classes: int,
    *,
    min_pixels: int = 1,
    max_blocks: int = MAX_BLOCKS,
) -> TileSizes:
    """Measure tiles in the stored masks of a dataset, block by block.

    A class is in a tile with at least ``min_pixels`` pixels of it. Tiles are counted in native
    pixels from the corner of a section, as at registration.

    Raises:
        ValueError: no section has a mask.
    """
    blocks = [block for section in sections if section.has_mask for block in _blocks(section)]
    if not blocks:
        raise ValueError("no section has a mask")
    some = min(max_blocks, len(blocks))
    chosen = sorted(np.random.default_rng(0).permutation(len(blocks))[:some].tolist())
    group = zarr.open_group(str(store), mode="r")
    shown = {tile_px: np.zeros(num_classes, np.int64) for tile_px in TILE_SIZES_PX}
    num_tiles = dict.fromkeys(TILE_SIZES_PX, 0)
    for index in chosen:
        section, y0, x0 = blocks[index]
        array = group[f"masks/{section:06d}"]
        assert isinstance(array, zarr.Array)
        mask = np.asarray(array[y0 : y0 + _BLOCK_PX, x0 : x0 + _BLOCK_PX], dtype=np.uint8)
        finest = _counts(mask)[..., :num_classes]
        for tile_px in TILE_SIZES_PX:
            counts = _merged(finest, tile_px // _FINEST_PX)
            known: NDArray[np.bool_] = counts.sum(axis=-1) > 0
            present = present_classes(counts, min_pixels) & known[..., None]
            shown[tile_px] += present.sum(axis=(0, 1))
            num_tiles[tile_px] += int(known.sum())
    sizes = tuple(
        TileSize(px, num_tiles[px], tuple((shown[px] / max(1, num_tiles[px])).tolist()))
        for px in TILE_SIZES_PX
    )
    return TileSizes(sizes, suggested(sizes), len(chosen) / len(blocks))


def suggested(sizes: Sequence[TileSize]) -> int | None:
    """Return the size at which most classes lie in ``TELLING``; None if no class ever does.

    Of sizes with equally many such classes it is the one whose classes lie nearest on average, and
    of equally near ones the smallest.
    """
    best = max(sizes, key=lambda size: (_num_telling(size), -_distance(size)))
    return best.tile_px if _num_telling(best) else None


def _num_telling(size: TileSize) -> int:
    low, high = TELLING
    return sum(low <= share <= high for share in size.shares)


def _distance(size: TileSize) -> float:
    low, high = TELLING
    return sum(max(low - share, share - high, 0.0) for share in size.shares) / len(size.shares)


def _blocks(section: Section) -> Iterator[tuple[int, int, int]]:
    """Yield the section's index, and the first row and column, of each block."""
    for y0 in range(0, section.height, _BLOCK_PX):
        for x0 in range(0, section.width, _BLOCK_PX):
            yield section.index, y0, x0


def _counts(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the pixels of each value in each of the finest tiles of a block: (8, 8, 256)."""
    height, width = mask.shape
    rows, cols = (np.arange(side) // _FINEST_PX for side in (height, width))
    bins = (rows[:, None] * _PER_SIDE + cols) * 256 + mask  # (H, W)
    counts = np.bincount(bins.ravel(), minlength=_PER_SIDE * _PER_SIDE * 256)
    return counts.reshape(_PER_SIDE, _PER_SIDE, 256)


def _merged(counts: NDArray[np.int64], factor: int) -> NDArray[np.int64]:
    """Add up the counts (8, 8, C) of ``factor`` x ``factor`` tiles: (8 / factor, ..., C)."""
    per_side = _PER_SIDE // factor
    parts = counts.reshape(per_side, factor, per_side, factor, -1)
    merged: NDArray[np.int64] = parts.sum(axis=(1, 3))
    return merged


def telling_px(sizes: Sequence[TileSize], number: int) -> float | None:
    """Return the side at which class ``number`` would lie in the middle of ``TELLING``, in pixels.

    Between two measured sizes it is found on a straight line over the logarithm of the side; beyond
    them it is the smallest or the largest one. None for a class that no tile shows.
    """
    shares = [size.shares[number] for size in sizes]
    if not any(shares):
        return None
    sides = np.log2([size.tile_px for size in sizes])
    # A larger tile shows a class no less often, but for chance at the edges.
    rising = np.maximum.accumulate(shares)
    return float(2 ** np.interp(_MIDDLE, rising, sides))


def rescaled_px(tile_px: float, present: int, told: int) -> float:
    """Return the side at which a class would lie in the middle of ``TELLING``, from its labels.

    ``present`` of the ``told`` tiles with a side of ``tile_px`` show the class. If its structures
    were spread at random, a tile would be without them with a probability that falls exponentially
    with its area. A share of 0 or 1 stands for half a tile more or less. No side is more than four
    times as long as before, or as short.
    """
    share = min(max(present / told, 0.5 / told), 1 - 0.5 / told)
    low, high = TELLING
    if low <= share <= high:
        return tile_px
    factor = np.sqrt(np.log1p(-_MIDDLE) / np.log1p(-share))
    return float(tile_px * np.clip(factor, 1 / _MOST_CHANGE, _MOST_CHANGE))
