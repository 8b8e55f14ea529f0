"""Tiles of sections, and the labels that masks give them."""

from pathlib import Path

import numpy as np
import pytest

from models.data.domain import IGNORE, Tile
from models.data.labels import ABSENT, PRESENT, UNKNOWN
from models.data.tiles import (
    labels_of_some,
    num_tiles,
    relabelled,
    tile_class_pixels,
    tile_windows,
)
from tests.models.domains import square_domain, write_domain


def test_windows_cover_a_section_once_in_reading_order() -> None:
    assert list(tile_windows(20, 30, None)) == [(0, 0, 20, 30)]
    assert list(tile_windows(20, 30, 16)) == [
        (0, 0, 16, 16),
        (0, 16, 16, 14),
        (16, 0, 4, 16),
        (16, 16, 4, 14),
    ]
    assert list(tile_windows(20, 30, 64)) == [(0, 0, 20, 30)]


@pytest.mark.parametrize("shape", [(1, 1), (48, 64), (49, 65), (50, 17), (3000, 2000)])
@pytest.mark.parametrize("tile_px", [None, 16, 4096])
def test_classes_are_counted_tile_by_tile(shape: tuple[int, int], tile_px: int | None) -> None:
    mask = np.random.default_rng(1).choice(np.array([0, 1, 2, IGNORE], np.uint8), shape)
    counts = tile_class_pixels(mask, 3, tile_px)
    expected = [
        [int((mask[y0 : y0 + rows, x0 : x0 + cols] == value).sum()) for value in range(3)]
        for y0, x0, rows, cols in tile_windows(*shape, tile_px)
    ]
    assert counts.tolist() == expected
    assert counts.dtype == np.uint32
    assert len(counts) == num_tiles(*shape, tile_px)


def test_relabelled_by_the_native_masks(tmp_path: Path) -> None:
    image = np.zeros((32, 20), np.uint8)
    mask = np.zeros((32, 20), np.uint8)
    mask[15, 15] = 1  # one pixel, lost at the working size
    mask[16:, :16] = 1
    mask[16:, 16:] = IGNORE
    domain = write_domain(
        tmp_path / "d.zarr",
        [image] * 5,
        [mask, None, mask, mask, mask],
        ["train", "train", "val", "test", "unused"],
        [Tile(0, 0, 0, 32, 20, (ABSENT, ABSENT))],
        working_nm=16.0,
    )
    cut = relabelled(domain, 16)
    labels = {n: [t.labels for t in cut.tiles if t.section == n] for n in range(5)}
    unknown = (UNKNOWN, UNKNOWN)
    found = [(PRESENT, PRESENT), (PRESENT, ABSENT), (ABSENT, PRESENT), unknown]
    assert labels == {0: found, 1: [unknown] * 4, 2: [unknown] * 4, 3: found, 4: [unknown] * 4}
    assert [(t.y0, t.x0, t.height, t.width) for t in cut.tiles[:4]] == [
        (0, 0, 16, 16),
        (0, 16, 16, 4),
        (16, 0, 16, 16),
        (16, 16, 16, 4),
    ]
    assert (cut.sections, cut.info, cut.working_nm) == (domain.sections, domain.info, 16.0)
    assert np.array_equal(cut.image(cut.sections[0]), domain.image(domain.sections[0]))
    assert (
        cut.allowed(cut.sections[0])[1].astype(int).tolist()
        == [[1, 1, 1, 1, 0]] * 4 + [[1, 1, 1, 1, 1]] * 4
    )
    assert domain.tiles[0].labels == (ABSENT, ABSENT)


@pytest.mark.parametrize(
    ("splits", "labelled"), [(("train",), {0}), (("val", "test"), {1, 2}), ((), set())]
)
def test_only_the_wanted_splits_are_labelled(
    tmp_path: Path, splits: tuple[str, ...], labelled: set[int]
) -> None:
    image = np.zeros((8, 8), np.uint8)
    domain = write_domain(tmp_path / "d.zarr", [image] * 3, [image] * 3, ["train", "val", "test"])
    cut = relabelled(domain, 16, splits=splits)
    assert {tile.section for tile in cut.tiles if UNKNOWN not in tile.labels} == labelled
    assert {tile.labels for tile in cut.tiles if tile.section in labelled} <= {(PRESENT, ABSENT)}
    assert len(cut.tiles) == 3


def test_some_labels_are_drawn_and_more_of_them_hold_the_fewer(tmp_path: Path) -> None:
    whole = relabelled(square_domain(tmp_path / "d.zarr"), 16, splits=("train", "val", "test"))

    def places(number: int, seed: int, split: str = "train") -> set[tuple[int, int, int]]:
        some = labels_of_some(whole, number, seed)
        tiles = some.labelled_tiles([split])  # type: ignore[list-item]
        assert set(tiles) <= set(whole.tiles)
        return {(tile.section, tile.y0, tile.x0) for tile in tiles}

    assert [len(places(number, 0)) for number in (0, 4, 8, 10**6)] == [0, 4, 8, 27]
    assert places(4, 0) < places(8, 0)
    assert places(4, 0) != places(4, 1)
    assert {section for section, _, _ in places(8, 0)} <= {0, 1, 2}
    assert places(8, 0, "val") == set()
    assert len(places(0, 0, "test")) == 9
