"""The labelled tiles that compare candidates."""

from pathlib import Path

import numpy as np
import pytest

from models.choice.tiles import contradictions, jury, thinned, training_jury
from models.data.domain import Domain, Tile
from models.data.sections import Split
from tests.models.domains import A, P, U, write_domain


def domain(store: Path, splits: list[Split], tiles: list[Tile]) -> Domain:
    images = [np.zeros((64, 64), np.uint8)] * len(splits)
    return write_domain(store, images, [None] * len(splits), splits, tiles)


def grid(section: int, number: int, labels: list[tuple[int, int]]) -> list[Tile]:
    places = [divmod(n, 8) for n in range(number)]
    return [
        Tile(section, 8 * y, 8 * x, 8, 8, labels[n % len(labels)])
        for n, (y, x) in enumerate(places)
    ]


@pytest.mark.parametrize(
    ("num_val", "labels", "sections", "num_tiles", "seen"),
    [
        (64, [(P, A), (P, P)], [1], 64, False),
        (59, [(P, A), (P, P)], [0], 10, True),  # too few
        (64, [(P, A)], [0], 10, True),  # none of them judges a class
        (0, [(P, A)], [0], 10, True),
    ],
)
def test_validation_tiles_judge_if_they_can(
    tmp_path: Path,
    num_val: int,
    labels: list[tuple[int, int]],
    sections: list[int],
    num_tiles: int,
    *,
    seen: bool,
) -> None:
    tiles = grid(0, 10, [(P, A)]) + grid(1, num_val, labels) + grid(2, 64, [(P, A), (P, P)])
    tiles += grid(3, 64, [(U, U)])
    found = jury(domain(tmp_path / "d.zarr", ["train", "val", "test", "train"], tiles))
    assert [section.index for section in found.sections] == sections
    assert (found.num_tiles, found.seen) == (num_tiles, seen)


def test_without_labels_nobody_judges(tmp_path: Path) -> None:
    found = jury(domain(tmp_path / "d.zarr", ["train"], grid(0, 9, [(U, U)])))
    assert (found.sections, found.num_tiles) == ((), 0)


def test_a_tile_that_others_call_absent_as_a_whole_contradicts_them(tmp_path: Path) -> None:
    whole, left, right = (0, 0, 16, 16), (0, 0, 16, 8), (0, 8, 16, 8)

    def found(*tiles: tuple[tuple[int, int, int, int], tuple[int, int]]) -> int:
        made = [Tile(0, y, x, h, w, labels) for (y, x, h, w), labels in tiles]
        of = domain(tmp_path / "d.zarr", ["train"], made)
        return contradictions(of, of.sections)

    assert found((whole, (A, P)), (left, (P, P))) == 1
    assert found((left, (A, A)), (right, (A, U)), (whole, (P, P))) == 1
    assert found((left, (A, A)), (whole, (P, P))) == 0  # it may be on the right
    assert found((whole, (P, A)), (left, (A, A))) == 0
    assert found((left, (A, P)), (right, (P, A))) == 0


def test_few_sections_rank_if_they_hold_many_tiles(tmp_path: Path) -> None:
    tiles = [tile for section in range(20) for tile in grid(section, 50, [(P, A)])]
    judges = training_jury(domain(tmp_path / "t.zarr", ["train"] * 20, tiles))
    assert thinned(judges, 1000) == judges
    fewer = thinned(judges, 400)
    assert [section.index for section in fewer.sections] == [0, 3, 5, 8, 11, 14, 16, 19]
    assert fewer.num_tiles == 400
    assert len(thinned(judges, 1).sections) == 6
