"""Area given presence: the source's prior, the bias that meets it, and its place in the network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.config.stages import SegmenterConfig
from models.data.domain import IGNORE, Domain, Tile, TileWindows
from models.inference import segment
from models.labels_used.area import (
    PresentTiles,
    area_prior,
    class_bias,
    fold,
    predicted_in_tiles,
    prior_by_labels,
)
from models.labels_used.training_labels import TrainingLabels, spread
from models.networks.unet import UNet
from models.training.loop import seeded_weights
from tests.models.domains import A, P, U, write_domain

CLASSES = ("background", "square", "missing")


def masked(folder: Path, *masks: NDArray[np.uint8], **info: Any) -> Domain:
    images = [np.zeros(mask.shape, np.uint8) for mask in masks]
    facts: dict[str, Any] = {"class_names": CLASSES, **info}
    splits: Any = ["train"] * (len(masks) - 1) + ["test"]
    return write_domain(folder / "source.zarr", images, masks, splits, **facts)


def test_the_prior_is_the_mean_share_in_tiles_that_hold_the_class(tmp_path: Path) -> None:
    mask = np.zeros((10, 8), np.uint8)  # four whole tiles of 4 px, and two edge tiles below
    mask[:4, :4].flat[:4] = 1  # 4 of 16 pixels
    mask[:4, 4:].flat[:6] = 1
    mask[:4, 4:].flat[8:] = IGNORE  # 6 of the 8 that are known
    mask[8:] = 1
    other = np.ones((10, 8), np.uint8)  # of the test, so it says nothing
    prior = area_prior(masked(tmp_path, mask, other), 4)
    background = (12 / 16 + 2 / 8 + 1 + 1) / 4
    assert prior[:2] == pytest.approx([background, (4 / 16 + 6 / 8) / 2])
    assert np.isnan(prior[2])


def test_a_section_smaller_than_a_tile_is_a_tile(tmp_path: Path) -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[:3] = 1
    assert area_prior(masked(tmp_path, mask, mask), 100)[:2].tolist() == [0.25, 0.75]


def test_the_prior_is_that_of_the_working_size(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, :4] = 1
    mask[4:, :2] = 1
    halved = masked(tmp_path, mask, mask, working_nm=8.0)
    # Tiles of 2 px at 8 nm are tiles of 4 px at 4 nm: one is full, one is half full.
    assert area_prior(halved, 2)[1] == 0.75


def test_the_prior_is_for_tiles_like_those_labelled_and_for_classes_labels_tell_of(
    tmp_path: Path,
) -> None:
    mask = np.zeros((16, 24), np.uint8)
    mask[2:9, 3:8] = 1
    source = masked(tmp_path, mask, mask, class_names=("background", "square"))
    prior = prior_by_labels(source, tiled(tmp_path, TILES))
    assert np.isnan(prior[0])  # labelled present everywhere
    assert prior[1] == area_prior(source, round(np.sqrt(16 * 8)))[1] > 0
    assert np.isnan(prior_by_labels(source, tiled(tmp_path, []))).all()


def one_tile(margins: NDArray[np.float64]) -> NDArray[np.float32]:
    """Probabilities of two classes whose logits differ by ``margins``, for the second class."""
    square = 1 / (1 + np.exp(-margins))
    return np.stack([1 - square, square]).astype(np.float32)


def predicted(*tiles: NDArray[np.float64], labels: tuple[int, int] = (A, P)) -> PresentTiles:
    found = PresentTiles(2)
    for margins in tiles:
        height, width = margins.shape
        windows = TileWindows(np.array([[0, height, 0, width]]), np.array([labels]))
        found.add(one_tile(margins), windows)
    return found


LADDER = np.linspace(-4.5, 4.5, 10).reshape(2, 5)
"""Margins -4.5, -3.5 ... 4.5: a bias of k takes 5 + k of the 10 pixels."""


@pytest.mark.parametrize(("prior", "bias"), [(0.5, 0.0), (0.7, 2.0), (0.8, 3.0), (0.2, -3.0)])
def test_the_bias_meets_the_prior(prior: float, bias: float) -> None:
    found = predicted(*[LADDER] * 16)
    assert found.num_tiles.tolist() == [0, 16]
    whole = class_bias(found, np.array([0.9, prior]), 1.0)
    # Any bias between two margins meets it; the one nearest to 0 is taken.
    assert whole == pytest.approx([0, bias - np.sign(bias) * 0.5], abs=0.02)
    half = class_bias(found, np.array([0.9, prior]), 0.5)
    assert half.tolist() == (whole / 2).tolist()


def test_each_tile_counts_as_much_whatever_its_size() -> None:
    found, small = predicted(*[LADDER] * 8), np.full((1, 1), -2.0)
    for _ in range(8):
        found.add(one_tile(small), TileWindows(np.array([[0, 1, 0, 1]]), np.array([[A, P]])))
    # With 2 < b < 2.5 half of the tiles have all their pixels, and the others 7 of 10.
    assert class_bias(found, np.array([0, 0.85]), 1.0)[1] == pytest.approx(2.0, abs=0.02)


def test_no_bias_is_set_by_few_tiles_or_without_a_prior() -> None:
    prior = np.array([np.nan, 0.9])
    assert class_bias(predicted(*[LADDER] * 15), prior, 1.0).tolist() == [0, 0]
    assert class_bias(predicted(*[LADDER] * 16), prior, 1.0)[1] > 3
    assert class_bias(predicted(*[LADDER] * 16, labels=(P, P)), prior, 1.0)[0] == 0
    for label in (U, A):
        unlabelled = predicted(*[LADDER] * 16, labels=(P, label))
        assert class_bias(unlabelled, np.array([0.5, 0.9]), 1.0)[1] == 0


def test_a_class_that_was_not_found_is_not_invented() -> None:
    for margin, prior, most in ((-9.0, 0.3, 0.0), (9.0, 0.3, 0.0)):
        # No bias up to 6 changes a pixel: the one nearest to 0 is none.
        found = predicted(*[np.full((2, 2), margin)] * 16)
        assert class_bias(found, np.array([0, prior]), 1.0)[1] == most
    half = np.array([[-9.0, -5.9, -5.9, -9.0]])
    found = predicted(*[half] * 16)
    assert class_bias(found, np.array([0, 1.0]), 1.0)[1] == pytest.approx(5.9, abs=0.02)


def test_a_class_competes_with_those_that_the_labels_allow() -> None:
    probabilities = np.zeros((3, 1, 2), np.float32)
    probabilities[1] = [[0.2, 0.3]]  # class 0 is absent: its probability was set to 0
    probabilities[2] = [[0.4, 0.0]]
    found = PresentTiles(3)
    found.add(probabilities, TileWindows(np.array([[0, 1, 0, 2]]), np.array([[A, P, P]])))
    assert found.shares(1)[[0, 600, 1200]].tolist() == [0.5, 0.5, 1.0]
    assert found.shares(2)[[0, 600, 1200]].tolist() == [0.0, 0.5, 0.5]


def test_a_folded_bias_is_added_to_the_logits() -> None:
    with seeded_weights(0):
        segmenter = UNet(3, SegmenterConfig(base_filters=4, depth=1)).eval()
    x, bias = torch.rand(1, 1, 8, 8), np.array([0.0, 1.5, -2.0])
    with torch.no_grad():
        before = segmenter(x)
        fold(segmenter, bias)
        difference = segmenter(x) - before
    expected = torch.tensor(bias, dtype=torch.float32)[None, :, None, None].expand_as(before)
    torch.testing.assert_close(difference, expected, atol=1e-5, rtol=0)


def tiled(folder: Path, tiles: list[Tile]) -> Domain:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (16, 24)).astype(np.uint8) for _ in range(4)]
    splits: Any = ["train", "train", "train", "test"]
    return write_domain(folder / "target.zarr", images, [None] * 4, splits, tiles)


TILES = [
    Tile(section, 0, x0, 16, 8, labels)
    for section, of_section in enumerate([[(P, P), (P, P), (P, A)], [(U, U), (P, A), (P, P)]])
    for x0, labels in zip((0, 8, 16), of_section, strict=True)
] + [Tile(3, 0, 0, 16, 24, (A, A))]


def test_after_folding_the_predicted_share_is_the_prior(tmp_path: Path) -> None:
    target = tiled(tmp_path, TILES * 6)  # the same tiles again: 18 are labelled present
    with seeded_weights(3):
        segmenter = UNet(2, SegmenterConfig(base_filters=4, depth=1)).eval()
    with torch.no_grad():  # logits as far apart as those of a trained network
        segmenter.head.weight *= 20
    found = predicted_in_tiles(segmenter, target, 8)
    assert found.num_tiles.tolist() == [30, 18]
    fold(segmenter, class_bias(found, np.array([np.nan, 0.3]), 1.0))
    shares = [
        (segment(segmenter, target.image(target.sections[t.section]), 8).argmax(axis=0) == 1)[
            :, t.x0 : t.x0 + 8
        ].mean()
        for t in TILES
        if t.labels == (P, P)
    ]
    assert np.mean(shares) == pytest.approx(0.3, abs=0.02)


def test_the_labels_as_a_whole(tmp_path: Path) -> None:
    labels = TrainingLabels.of(tiled(tmp_path, TILES))
    assert labels.num_tiles == 5
    assert labels.present_share.tolist() == [1.0, 0.6]
    assert labels.uninformative.tolist() == [True, False]
    assert labels.tile_px == round(np.sqrt(16 * 8))
    none = TrainingLabels.of(tiled(tmp_path, []))
    assert (none.num_tiles, none.tile_px) == (0, None)
    assert np.isnan(none.present_share).all()
    assert none.uninformative.tolist() == [False, False]


def test_few_sections_with_labels_are_evenly_spread(tmp_path: Path) -> None:
    tiles = [Tile(index, 0, 0, 8, 8, (P, A) if index != 4 else (U, U)) for index in range(9)]
    image = np.zeros((8, 8), np.uint8)
    splits: Any = ["train"] * 8 + ["test"]
    target = write_domain(tmp_path / "many.zarr", [image] * 9, [None] * 9, splits, tiles)
    assert [section.index for section in spread(target, 3)] == [0, 3, 7]
    assert [section.index for section in spread(target, 99)] == [0, 1, 2, 3, 5, 6, 7]
