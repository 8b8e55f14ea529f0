"""Labels that are kept back from training: whole sections, or a part of each."""

from pathlib import Path

import numpy as np
import pytest

from models.choice.held_back import hold_back
from models.data.domain import Domain, Tile
from tests.models.domains import A, P, write_domain


def target(store: Path, sections: int) -> Domain:
    """Sections of 4 x 4 tiles, and a validation section."""
    images = [np.zeros((64, 64), np.uint8)] * (sections + 1)
    tiles = [
        Tile(section, y, x, 16, 16, (P, A) if section % 2 else (A, P))
        for section in range(sections + 1)
        for y in range(0, 64, 16)
        for x in range(0, 64, 16)
    ]
    splits = ["train"] * sections + ["val"]
    return write_domain(store, images, [None] * (sections + 1), splits, tiles)  # type: ignore[arg-type]


@pytest.mark.parametrize(("share", "expected"), [(0.25, [2, 6]), (0.5, [1, 3, 5, 7])])
def test_whole_sections_are_held_back_evenly(
    tmp_path: Path, share: float, expected: list[int]
) -> None:
    divided = hold_back(target(tmp_path / "t.zarr", 8), share)
    judging = divided.judging.labelled_tiles(["train"])
    assert sorted({tile.section for tile in judging}) == expected
    assert len(judging) == 16 * len(expected)
    training = divided.training.labelled_tiles(["train"])
    assert len(training) == 16 * (8 - len(expected))
    assert not {tile.section for tile in training} & set(expected)


@pytest.mark.parametrize(("share", "rows"), [(0.25, 1), (0.5, 2)])
def test_of_few_sections_the_upper_part_of_each_is_held_back(
    tmp_path: Path, share: float, rows: int
) -> None:
    divided = hold_back(target(tmp_path / "t.zarr", 3), share)
    judging = divided.judging.labelled_tiles(["train"])
    assert {tile.section for tile in judging} == {0, 1, 2}
    assert {tile.y0 for tile in judging} == {16 * row for row in range(rows)}
    assert len(divided.training.labelled_tiles(["train"])) == 3 * 16 - len(judging)


def test_tiles_of_other_splits_keep_their_labels(tmp_path: Path) -> None:
    divided = hold_back(target(tmp_path / "t.zarr", 3), 0.25)
    for one in (divided.training, divided.judging):
        assert len(one.labelled_tiles(["val"])) == 16
