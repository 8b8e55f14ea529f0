"""The numbers of tiles that a store tells: as many as come when all are asked for."""

import numpy as np
import pytest

from models.data.intake.padding import DataField
from models.data.intake.store import StoredTiles
from models.data.sections import Section
from models.data.tiles import num_tiles


@pytest.mark.parametrize("tile_px", [None, 16, 20])
def test_numbers_are_those_of_the_tiles(tile_px: int | None) -> None:
    rng = np.random.default_rng(0)
    sections = [Section(n, f"{n}", "train", 70, 90, n != 2) for n in range(4)]
    counts = tuple(
        rng.integers(0, 2, (num_tiles(70, 90, tile_px), 3)).astype(np.uint32)
        if s.has_mask
        else None
        for s in sections
    )
    fields = {0: DataField(33, 70, 0, 41), 2: DataField(20, 40, 0, 90), 3: DataField(0, 1, 89, 90)}
    tiles = StoredTiles(tile_px, tuple(sections), counts, fields)
    every = list(tiles)
    assert len(tiles) == len(every)
    assert tiles.num_of_sections() == [sum(t.section == n for t in every) for n in range(4)]
    assert tiles.without(3) == [
        sum(t.class_pixels is not None and t.class_pixels[c] == 0 for t in every) for c in range(3)
    ]
