"""Cut sections into tiles, and label the tiles by their masks."""

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.data.domain import Domain, Tile
from models.data.labels import UNKNOWN, class_pixels, labels_of_mask
from models.data.sections import Section, Split

_VALUES = 256
_PIXELS_AT_A_TIME = 1 << 22


def tile_windows(
    height: int, width: int, tile_px: int | None
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (y0, x0, height, width) of a section's tiles, row by row; edge tiles are smaller."""
    if tile_px is None:
        yield 0, 0, height, width
        return
    for y0 in range(0, height, tile_px):
        for x0 in range(0, width, tile_px):
            yield y0, x0, min(tile_px, height - y0), min(tile_px, width - x0)


def num_tiles(height: int, width: int, tile_px: int | None) -> int:
    """Count the tiles of a section."""
    return 1 if tile_px is None else -(-height // tile_px) * -(-width // tile_px)


def tile_class_pixels(
    mask: NDArray[np.uint8], num_classes: int, tile_px: int | None
) -> NDArray[np.uint32]:
    """Count the pixels of each class in each tile of a mask (H, W): (tiles, C), tiles row by row.

    Ignored pixels do not count.
    """
    height, width = mask.shape
    side = tile_px or max(height, width)
    across = -(-width // side)
    # A row of tiles is counted at once: tile by tile, a million tiles would take a minute.
    bins = np.arange(width) // side * _VALUES
    step = max(1, _PIXELS_AT_A_TIME // width)
    counts = []
    for top in range(0, height, side):
        bottom = min(top + side, height)
        of_row = np.zeros(across * _VALUES, np.int64)
        for y0 in range(top, bottom, step):
            places = mask[y0 : min(y0 + step, bottom)] + bins
            of_row += np.bincount(places.ravel(), minlength=of_row.size)
        counts.append(of_row.reshape(across, _VALUES)[:, :num_classes].astype(np.uint32))
    return np.concatenate(counts)


def relabelled(
    domain: Domain, tile_px: int, *, splits: Collection[Split] = ("train", "test")
) -> Domain:
    """Return the same dataset with tiles of ``tile_px`` native pixels, labelled by its masks.

    A class is present if the tile has a pixel of it, else absent or, if it was not annotated in
    the section, unknown. A tile stays unlabelled if its
    section has no mask or is of another split than ``splits``, or if its mask ignores every pixel.
    """
    tiles = [
        tile
        for section in domain.sections
        for tile in _tiles(domain, section, tile_px, labelled=section.split in splits)
    ]
    return Domain(domain.store, domain.info, domain.sections, tiles, working_nm=domain.working_nm)


def labels_of_some(domain: Domain, number: int, seed: int) -> Domain:
    """Return the same dataset with the labels of ``number`` training tiles, and of test tiles.

    The tiles are drawn at random. With the same seed a larger number has those of a smaller one.
    """
    labelled = domain.labelled_tiles(["train"])
    order = np.random.default_rng(seed).permutation(len(labelled))
    hidden = {id(labelled[n]) for n in order[number:]} | set(
        map(id, domain.labelled_tiles(["val"]))
    )
    return without_labels(domain, hidden)


def without_labels(domain: Domain, hidden: Collection[int]) -> Domain:
    """Return the same dataset without labels and points of the tiles whose ``id`` is in hidden."""
    unknown = (UNKNOWN,) * domain.num_classes
    tiles = [
        replace(tile, labels=unknown, points=()) if id(tile) in hidden else tile
        for tile in domain.tiles
    ]
    return Domain(domain.store, domain.info, domain.sections, tiles, working_nm=domain.working_nm)


def _tiles(domain: Domain, section: Section, tile_px: int, *, labelled: bool) -> Iterator[Tile]:
    # The native mask: a class of a few pixels could be lost by resampling.
    mask = domain.native_mask(section) if labelled and section.has_mask else None
    for y0, x0, height, width in tile_windows(section.height, section.width, tile_px):
        labels: tuple[int, ...] = (UNKNOWN,) * domain.num_classes
        if mask is not None:
            window = mask[y0 : y0 + height, x0 : x0 + width]
            counts = class_pixels(window, domain.num_classes)
            labels = labels_of_mask(counts, unannotated=section.unannotated)
        yield Tile(section.index, y0, x0, height, width, labels)
