"""Points: the discs around them, what they do to pseudo-labels, and what decides a training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.config.rounds import RoundsConfig
from models.data.class_map import ClassMap, mapped
from models.data.domain import IGNORE, Domain, Point, Tile
from models.data.samples import Crop
from models.labels_used.points import PointDiscs, disc, point_facts
from tests.models.domains import U, write_domain

I = IGNORE  # noqa: E741
SIDE = 12


def pointed(folder: Path, *points: Point, splits: Any = ("train",), **info: Any) -> Domain:
    """One section of 12 x 12 pixels of 4 nm, as one tile, with these points; three classes."""
    images = [np.zeros((SIDE, SIDE), np.uint8) for _ in splits]
    tiles = [Tile(n, 0, 0, SIDE, SIDE, (U, U, U), points) for n in range(len(splits))]
    names = ("a", "b", "c")
    store = folder / f"{len(list(folder.iterdir()))}.zarr"
    return write_domain(
        store, images, [None] * len(splits), splits, tiles, class_names=names, **info
    )


def here(y: int, x: int, number: int = 1, *, present: bool = True) -> Point:
    return Point(y, x, number, present)


@pytest.mark.parametrize(
    ("radius", "number"), [(0, 1), (0.9, 1), (1, 5), (1.5, 9), (2, 13), (100, SIDE * SIDE)]
)
def test_a_disc_holds_the_pixels_within_its_radius(radius: float, number: int) -> None:
    rows, columns = disc(here(5, 6), (SIDE, SIDE), radius)
    assert len(rows) == number
    assert ((rows - 5) ** 2 + (columns - 6) ** 2 <= radius**2).all()


def test_a_disc_is_cut_at_the_edge() -> None:
    rows, columns = disc(here(0, SIDE - 1), (SIDE, SIDE), 1)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 10), (0, 11), (1, 11)]


def test_the_radius_is_a_length_on_the_sample(tmp_path: Path) -> None:
    target = pointed(tmp_path, here(5, 6))
    for nm, number in ((3.9, 1), (4.0, 5), (8.0, 13)):
        discs = PointDiscs(target, RoundsConfig(point_radius_nm=nm))
        assert (discs.pixels(target.sections[0]) == 1).sum() == number
    coarse = pointed(tmp_path, here(5, 6), working_nm=8.0)  # 6 x 6 pixels
    found = PointDiscs(coarse, RoundsConfig(point_radius_nm=0)).pixels(coarse.sections[0])
    assert np.argwhere(found == 1).tolist() == [[2, 3]]


def test_where_two_discs_meet_only_the_points_have_a_class(tmp_path: Path) -> None:
    target = pointed(tmp_path, here(5, 4, 1), here(5, 5, 2))
    found = PointDiscs(target, RoundsConfig(point_radius_nm=4)).pixels(target.sections[0])
    assert found[5, 2:8].tolist() == [I, 1, 1, 2, 2, I]
    near = pointed(tmp_path, here(5, 4, 1), here(5, 6, 2))
    found = PointDiscs(near, RoundsConfig(point_radius_nm=4)).pixels(near.sections[0])
    assert found[5, 2:9].tolist() == [I, 1, 1, I, 2, 2, I]


def test_absent_points_deny_their_class(tmp_path: Path) -> None:
    target = pointed(tmp_path, here(5, 6, 2, present=False))
    discs = PointDiscs(target, RoundsConfig(point_radius_nm=4))
    given = np.full((3, SIDE, SIDE), 0.3, np.float32)
    denied = discs.denied(given, target.sections[0])
    assert (denied == 0).sum() == (denied[2] == 0).sum() == 5
    assert (given == np.float32(0.3)).all()
    assert (discs.pixels(target.sections[0]) == I).all()


@pytest.mark.parametrize("turns", range(4))
def test_a_crop_turns_with_its_points(tmp_path: Path, turns: int) -> None:
    target = pointed(tmp_path, here(5, 6))
    discs = PointDiscs(target, RoundsConfig(point_radius_nm=0))
    crop = Crop(target.sections[0], 4, 4, 10, turns)
    found = np.rot90(discs.of_crop(crop), -turns)
    assert np.argwhere(found == 1).tolist() == [[1, 2]]


def test_points_of_other_splits_or_of_no_weight_take_no_part(tmp_path: Path) -> None:
    target = pointed(tmp_path, here(5, 6), splits=("val", "test"))
    assert not PointDiscs(target, RoundsConfig()).any
    assert not point_facts(target, RoundsConfig())
    target = pointed(tmp_path, here(5, 6))
    assert PointDiscs(target, RoundsConfig()).any
    assert point_facts(target, RoundsConfig()) == {"points": [[0, 5, 6, 1, True]]}
    assert not PointDiscs(target, RoundsConfig(point_weight=0)).any
    assert not point_facts(target, RoundsConfig(point_weight=0))


def test_points_take_the_classes_of_the_job(tmp_path: Path) -> None:
    target = pointed(
        tmp_path,
        here(1, 1, 0),
        here(2, 2, 1),
        here(3, 3, 2),
        here(4, 4, 1, present=False),
        here(5, 5, 2, present=False),
    )
    turned = mapped(target, ClassMap(("x", "y"), (1, 0, I)))
    assert turned.tiles[0].points == (
        here(1, 1, 1),
        here(2, 2, 0),
        here(4, 4, 0, present=False),
    )
    # Two classes are one here: that one of them is absent does not say that both are.
    merged = mapped(target, ClassMap(("x", "y"), (0, 1, 1)))
    assert [point.number for point in merged.tiles[0].points] == [0, 1, 1]
