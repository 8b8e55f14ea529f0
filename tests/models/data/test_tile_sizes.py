"""Shares of tiles in which classes lie, against tiles that are cut one by one."""

import math
from pathlib import Path

import numpy as np
import pytest
import zarr

from models.data.labels import class_pixels
from models.data.sections import Section
from models.data.tile_sizes import (
    TILE_SIZES_PX,
    TileSize,
    rescaled_px,
    suggested,
    telling_px,
    tile_sizes,
)
from models.data.tiles import tile_windows

IGNORE = 255


def stored(folder: Path, *masks: np.ndarray | None) -> list[Section]:
    """The sections of a store with these masks; None stands for a section without one."""
    group = zarr.create_group(str(folder))
    sections = []
    for index, mask in enumerate(masks):
        height, width = (64, 64) if mask is None else mask.shape
        if mask is not None:
            group.create_array(f"masks/{index:06d}", data=mask, chunks=(256, 256))
        sections.append(Section(index, str(index), "train", height, width, mask is not None))
    return sections


def by_hand(masks: list[np.ndarray], tile_px: int, num_classes: int, min_pixels: int) -> TileSize:
    tiles = [
        class_pixels(mask[y0 : y0 + height, x0 : x0 + width], num_classes)
        for mask in masks
        for y0, x0, height, width in tile_windows(*mask.shape, tile_px)
    ]
    counts = np.array([tile for tile in tiles if tile.any()])
    shares = (counts >= min_pixels).mean(axis=0)
    return TileSize(tile_px, len(counts), tuple(shares.tolist()))


@pytest.mark.parametrize("min_pixels", [1, 30])
def test_shares_are_those_of_tiles_cut_one_by_one(tmp_path: Path, min_pixels: int) -> None:
    rng = np.random.default_rng(3)
    masks = []
    for height, width in ((700, 1100), (512, 512), (65, 40)):
        mask = np.zeros((height, width), np.uint8)
        for _ in range(40):
            y, x = rng.integers(height), rng.integers(width)
            mask[y : y + 20, x : x + 20] = rng.choice([1, 2, IGNORE])
        masks.append(mask)
    masks[0][:200, :600] = IGNORE
    sections = stored(tmp_path, *masks)
    found = tile_sizes(tmp_path, sections, 4, min_pixels=min_pixels)
    assert found.read == 1
    assert [size.tile_px for size in found.sizes] == list(TILE_SIZES_PX)
    for size in found.sizes:
        expected = by_hand(masks, size.tile_px, 4, min_pixels)
        assert (size.tile_px, size.num_tiles) == (expected.tile_px, expected.num_tiles)
        assert size.shares == pytest.approx(expected.shares)
        assert size.shares[3] == 0


def test_sections_without_masks_are_passed_over(tmp_path: Path) -> None:
    mask = np.zeros((128, 128), np.uint8)
    sections = stored(tmp_path, None, mask)
    assert [size.num_tiles for size in tile_sizes(tmp_path, sections, 2).sizes] == [4, 1, 1, 1]
    with pytest.raises(ValueError, match="mask"):
        tile_sizes(tmp_path, sections[:1], 2)


def test_a_mask_that_ignores_all_has_no_tiles(tmp_path: Path) -> None:
    sections = stored(tmp_path, np.full((100, 100), IGNORE, np.uint8))
    found = tile_sizes(tmp_path, sections, 2)
    assert {(size.num_tiles, size.shares) for size in found.sizes} == {(0, (0.0, 0.0))}
    assert found.suggested_px is None


def test_of_large_masks_a_part_is_read_always_the_same(tmp_path: Path) -> None:
    mask = np.zeros((1024, 4096), np.uint8)
    mask[:, 2048:] = 1
    sections = stored(tmp_path, mask)
    part = tile_sizes(tmp_path, sections, 2, max_blocks=4)
    assert part.read == 0.25
    assert [size.num_tiles for size in part.sizes] == [256, 64, 16, 4]
    assert part == tile_sizes(tmp_path, sections, 2, max_blocks=4)


def size(tile_px: int, *shares: float) -> TileSize:
    return TileSize(tile_px, 100, shares)


def test_the_size_at_which_most_classes_are_telling_is_suggested() -> None:
    sizes = [size(64, 1, 0.1, 0.3), size(128, 1, 0.31, 0.6), size(256, 1, 0.5, 0.9)]
    assert suggested(sizes) == 128
    # Equally many: nearer; and then smaller.
    assert suggested([size(64, 0.5, 0.0), size(128, 0.5, 0.2), size(256, 0.5, 1.0)]) == 128
    assert suggested([size(64, 0.5, 1.0), size(128, 0.6, 1.0)]) == 64
    assert suggested([size(64, 0.29, 1.0), size(128, 0.61, 1.0)]) is None


def test_a_suggestion_from_masks(tmp_path: Path) -> None:
    mask = np.zeros((1024, 1024), np.uint8)
    mask[::256, ::256] = 1  # a pixel in each tile of 256, in every fourth of 128
    mask[1:100] = 2  # in the first row of tiles
    found = tile_sizes(tmp_path, stored(tmp_path, mask), 3)
    shares = {size.tile_px: size.shares for size in found.sizes}
    assert shares[64] == (1, 1 / 16, 1 / 8)
    assert shares[128] == (1, 1 / 4, 1 / 8)
    assert shares[256] == (1, 1, 1 / 4)
    assert shares[512] == (1, 1, 1 / 2)
    assert found.suggested_px == 512


def test_a_telling_side_lies_between_the_sizes_that_were_measured() -> None:
    sizes = [TileSize(64, 10, (0.2, 0.9, 0.0)), TileSize(128, 10, (0.7, 1.0, 0.0))]
    assert telling_px(sizes, 0) == pytest.approx(64 * 2**0.5)
    assert telling_px(sizes, 1) == 64
    assert telling_px(sizes, 2) is None


@pytest.mark.parametrize(
    ("present", "told", "px"),
    [
        (45, 100, 128),  # in the middle: as it is
        (35, 100, 128),
        (84, 100, 128 * (math.log(0.55) / math.log(0.16)) ** 0.5),
        (10, 100, 128 * (math.log(0.55) / math.log(0.90)) ** 0.5),
        (0, 100, 512),
        (100, 100, 128 * (math.log(0.55) / math.log(0.005)) ** 0.5),
    ],
)
def test_labels_tell_the_side_of_telling_tiles(present: int, told: int, px: float) -> None:
    assert rescaled_px(128, present, told) == pytest.approx(px)
