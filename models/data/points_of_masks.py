"""Read points off the masks of a target, as somebody would point at organelles."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from models.data.domain import Domain, Point, Tile
from models.data.labels import PRESENT, UNKNOWN, class_pixels


def points_of_masks(domain: Domain, number: int, seed: int) -> Domain:
    """Return the same dataset with ``number`` points in training tiles, and no other label there.

    Each point is a pixel of a class, drawn from the masks; the tile that holds it is present for
    the class. The classes take turns, without the one that covers most: nobody points at it. No
    tile has two points of a class, so there may be fewer. With the same seed a larger number has
    those of a smaller one. Labels of validation tiles are hidden, and those of test tiles stay.
    """
    pointed: dict[int, list[Point]] = defaultdict(list)
    for tile, point in _drawn(domain, number, np.random.default_rng(seed)):
        pointed[id(tile)].append(point)
    hidden = {id(tile) for tile in domain.labelled_tiles(["train", "val"])}
    tiles = [
        _with_points(tile, pointed[id(tile)]) if id(tile) in hidden | pointed.keys() else tile
        for tile in domain.tiles
    ]
    return Domain(domain.store, domain.info, domain.sections, tiles, working_nm=domain.working_nm)


def _drawn(domain: Domain, number: int, rng: np.random.Generator) -> Iterator[tuple[Tile, Point]]:
    masks = {s.index: domain.native_mask(s) for s in domain.split("train", masked=True)}
    tiles = [tile for tile in domain.tiles if tile.section in masks]
    counts = np.zeros((len(tiles), domain.num_classes), np.int64)
    for place, tile in enumerate(tiles):
        window = masks[tile.section][tile.y0 : tile.y0 + tile.height, tile.x0 :][:, : tile.width]
        counts[place] = class_pixels(window, domain.num_classes)
    commonest = int(counts.sum(axis=0).argmax())
    orders = {
        c: iter(rng.permutation(np.flatnonzero(counts[:, c])).tolist())
        for c in range(domain.num_classes)
        if c != commonest
    }
    made = 0
    while orders and made < number:
        for c in list(orders):
            found: int | None = next(orders[c], None)
            if found is None:
                del orders[c]
            elif made < number:
                tile = tiles[found]
                mask = masks[tile.section][tile.y0 : tile.y0 + tile.height, tile.x0 :]
                inside = np.argwhere(mask[:, : tile.width] == c)
                y, x = inside[rng.integers(len(inside))].tolist()
                made += 1
                yield tile, Point(tile.y0 + y, tile.x0 + x, c, present=True)


def _with_points(tile: Tile, points: list[Point]) -> Tile:
    present = {point.number for point in points}
    labels = tuple(PRESENT if c in present else UNKNOWN for c in range(len(tile.labels)))
    return replace(tile, labels=labels, points=tuple(points))
