"""Regions: the pixels of a crop that belong to each labelled tile."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.baselines.regions import labelled_crop, tiles_of
from models.data.domain import IGNORE, Domain, Tile
from models.data.samples import Crop
from tests.models.domains import A, P, U, write_domain

TILES = {
    # Of a section of 12 x 16: y0, x0, height, width, labels.
    "whole": Tile(0, 2, 4, 4, 4, (P, A, U)),
    "cut": Tile(0, 6, 6, 6, 8, (P, A, U)),
    "covered": Tile(0, 2, 8, 4, 4, (P, A, P)),
    "covers": Tile(0, 2, 10, 2, 2, (A, P, A)),
    "outside": Tile(0, 0, 0, 2, 16, (P, P, P)),
    "hidden": Tile(0, 8, 2, 2, 2, (P, P, P)),
    "hides": Tile(0, 8, 2, 2, 2, (A, A, P)),
}
"""The order is that of a dataset: later tiles prevail."""


def tiled(folder: Path, tiles: Sequence[Tile], **info: Any) -> Domain:
    image, classes = np.zeros((12, 16), np.uint8), ("a", "b", "c")
    return write_domain(
        folder / "tiled.zarr", [image], [None], ["train"], tiles, class_names=classes, **info
    )


EXPECTED_MAP = [
    # Rows 2 to 9, columns 2 to 9 and 10, 11: the window of 8 x 10 cut to 8 x 8 below.
    "..wwwwcc",
    "..wwwwcc",
    "..wwwwcc",
    "..wwwwcc",
    "....tttt",
    "....tttt",
    "hh..tttt",
    "hh..tttt",
]


def by_letter(numbers: NDArray[np.int64], letters: str) -> list[str]:
    return ["".join("." if n < 0 else letters[n] for n in row) for row in numbers]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_tiles_of_a_crop(tmp_path: Path, turns: int, mirrored: bool) -> None:
    domain = tiled(tmp_path, list(TILES.values()))
    crop = Crop(domain.sections[0], 2, 2, 8, turns, mirrored)
    numbers, labels = tiles_of(domain, crop)
    letters = np.array([list(row) for row in EXPECTED_MAP])
    turned = np.rot90(letters[:, ::-1] if mirrored else letters, turns)
    assert by_letter(numbers, "wtch") == ["".join(row) for row in turned]
    assert labels.tolist() == [[P, A, U], [U, A, U], [U, A, U], [A, A, P]]


def test_a_tile_covered_by_another_is_cut(tmp_path: Path) -> None:
    domain = tiled(tmp_path, [TILES["covered"], TILES["covers"]])
    numbers, labels = tiles_of(domain, Crop(domain.sections[0], 0, 0, 16))
    assert labels.tolist() == [[U, A, U], [A, P, A]]
    assert np.bincount(numbers.ravel() + 1).tolist() == [16 * 16 - 16, 12, 4]


@pytest.mark.parametrize("turns", range(4))
def test_padding_is_in_no_region(tmp_path: Path, turns: int) -> None:
    everything = Tile(0, 0, 0, 12, 16, (P, A, U))
    domain = tiled(tmp_path, [everything])
    crop = Crop(domain.sections[0], 0, 0, 20, turns)
    numbers, labels = tiles_of(domain, crop)
    inside = crop.padded(np.ones((12, 16), bool), fill=False)
    assert np.array_equal(numbers == 0, inside)
    assert labels.tolist() == [[P, A, U]]
    mask = np.where(inside, 2, IGNORE).astype(np.int64)
    mask[inside] = np.arange(12 * 16) % 2 * 2  # classes 0 and 2
    of_source, present = labelled_crop(mask, 3)
    assert np.array_equal(of_source, numbers)
    assert present.tolist() == [[P, A, P]]
    # Nor are pixels that nobody labelled.
    mask[mask == 2] = IGNORE
    of_source, present = labelled_crop(mask, 3)
    assert np.array_equal(of_source == 0, mask == 0)
    assert present.tolist() == [[P, A, A]]


def test_the_tiles_at_the_working_pixel_size(tmp_path: Path) -> None:
    domain = tiled(tmp_path, list(TILES.values()), working_nm=8.0)
    crop = Crop(domain.sections[0], 1, 1, 4, 1)
    numbers, labels = tiles_of(domain, crop)
    halved = np.array([list(row) for row in EXPECTED_MAP])[::2, ::2]
    assert by_letter(numbers, "wtch") == ["".join(row) for row in np.rot90(halved)]
    assert labels.tolist() == [[P, A, U], [U, A, U], [U, A, U], [A, A, P]]


def test_what_is_absent_in_a_region_is_not_allowed_in_its_pixels(tmp_path: Path) -> None:
    """The regions' map and the filter's are of the same geometry."""
    domain = tiled(tmp_path, list(TILES.values()))
    for turns in range(4):
        crop = Crop(domain.sections[0], 3, 1, 9, turns, mirrored=True)
        numbers, labels = tiles_of(domain, crop)
        window = domain.allowed(crop.section, crop.rows, crop.cols)
        allowed = crop.completed(window, fill=True)
        absent = np.append(labels == A, np.zeros((1, 3), bool), axis=0)[numbers]
        assert np.array_equal(np.moveaxis(absent, 2, 0), ~allowed)
