"""Pseudo-labels of whole sections: by hand, part by part, and all parts with a real network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain, Tile, TileWindows
from models.data.samples import Crop
from models.inference import segment
from models.labels_used import section_labels
from models.labels_used.section_labels import (
    SectionLabels,
    most_likely,
    protected,
    with_missing,
)
from models.networks.unet import UNet
from models.training.loop import seeded_weights
from tests.models.domains import A, P, U, write_domain
from tests.models.stage_process import tiny

I = IGNORE  # noqa: E741
NO_PRIOR = np.full(2, np.nan)


def test_the_likeliest_class_is_the_label() -> None:
    probabilities = np.array([[[0.5, 0.0, 0.0]], [[0.2, 0.1, 0.0]]], np.float32)
    assert most_likely(probabilities).tolist() == [[0, 1, I]]


def test_between_protected_classes_the_source_decides() -> None:
    pairs = [(a, b) for a in (0, 1, 2, I) for b in (0, 1, 2, I)]
    labels, of_source_only = np.array(pairs, np.uint8).T[:, None]
    kept = protected(labels, of_source_only, np.array([True, True, False]))
    expected = [b if a in (0, 1) and b in (0, 1) else a for a, b in pairs]
    assert kept.ravel().tolist() == expected


def window(*edges_and_labels: Any) -> TileWindows:
    edges, labels = zip(*edges_and_labels, strict=True)
    return TileWindows(np.array(edges), np.array(labels))


def ladder() -> NDArray[np.float32]:
    """Two classes in 10 x 10 pixels: the second is the likelier the later the pixel."""
    square = (np.arange(100, dtype=np.float32).reshape(10, 10) + 1) / 1000
    return np.stack([1 - square, square])


def test_a_missing_class_takes_its_likeliest_pixels() -> None:
    labels = np.zeros((10, 10), np.uint8)
    tiles = window(((0, 10, 0, 10), (U, P)))
    added = with_missing(labels, ladder(), tiles, 0.03)
    assert added.ravel()[-6:].tolist() == [I, I, I, 1, 1, 1]
    assert not added.ravel()[:-6].any()
    assert not labels.any()  # what was given stays


@pytest.mark.parametrize(("found", "adds"), [(2, True), (3, False)])
def test_a_class_that_covers_its_share_is_not_missing(found: int, adds: bool) -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[0, :found] = 1
    added = with_missing(labels, ladder(), window(((0, 10, 0, 10), (P, P))), 0.03)
    assert np.array_equal(added, labels) == (not adds)
    assert (added[0] == 1).sum() == found


@pytest.mark.parametrize("label", [A, U])
def test_only_present_classes_can_be_missing(label: int) -> None:
    labels = np.zeros((10, 10), np.uint8)
    tiles = window(((0, 10, 0, 10), (P, label)))
    assert np.array_equal(with_missing(labels, ladder(), tiles, 0.03), labels)


def test_a_share_of_0_adds_nothing() -> None:
    labels = np.zeros((10, 10), np.uint8)
    assert with_missing(labels, ladder(), window(((0, 10, 0, 10), (P, P))), 0) is labels


def test_a_small_tile_gets_a_pixel_and_no_pixel_that_another_tile_forbids() -> None:
    labels, probabilities = np.zeros((10, 10), np.uint8), ladder()
    probabilities[1, 4:6, 4:6] = 0  # as a tile leaves it that calls the class absent
    tiles = window(((0, 3, 0, 3), (P, P)), ((3, 6, 3, 6), (P, P)))
    added = with_missing(labels, probabilities, tiles, 0.03)
    assert np.argwhere(added == 1).tolist() == [[2, 2], [5, 3]]
    assert np.argwhere(added == I).tolist() == [[2, 1], [4, 3]]


def test_a_tile_of_pixels_without_any_class_stays_so() -> None:
    labels = np.full((4, 4), I, np.uint8)
    tiles = window(((0, 4, 0, 4), (P, P)), ((0, 4, 0, 4), (A, A)))
    added = with_missing(labels, np.zeros((2, 4, 4), np.float32), tiles, 0.5)
    assert (added == I).all()


# --- with a network -------------------------------------------------------------------------------

SIDE = 24
LABELS = [((P, P), (P, A)), ((P, U), (P, P)), ((P, A), (P, P))]
"""Of the left and the right half of each section."""


def tiled(folder: Path, labels: Any = LABELS) -> Domain:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8) for _ in range(3)]
    tiles = [
        Tile(section, 0, half % 2 * SIDE // 2, SIDE, SIDE // 2, of_half)
        for section, halves in enumerate(labels)
        for half, of_half in enumerate(halves)
    ]
    return write_domain(folder / "target.zarr", images, [None] * 3, ["train"] * 3, tiles)


def network(seed: int, config: StyleFilterConfig) -> UNet:
    with seeded_weights(seed):
        segmenter = UNet(2, config.segmenter).eval()
    with torch.no_grad():  # logits as far apart as those of a trained network
        segmenter.head.weight *= 20
    return segmenter


def config_of(**rounds: Any) -> StyleFilterConfig:
    return tiny({"crop_px": 32}).changed({"rounds": rounds})


def labels_of(
    target: Domain, config: StyleFilterConfig, prior: NDArray[np.float64] = NO_PRIOR
) -> SectionLabels:
    return SectionLabels(network(1, config), network(2, config), target, config, prior)


def by_hand(segmenter: UNet, target: Domain, number: int, *, filtered: bool = True) -> Any:
    """The likeliest class of the mean over four rotations: (H, W)."""
    section = target.sections[number]
    image, total = target.image(section), np.zeros((2, SIDE, SIDE))
    for turns in range(4):
        turned = segment(segmenter, np.rot90(image, turns).copy(), 32)
        total += np.rot90(turned, 4 - turns, axes=(1, 2))
    return (total * target.allowed(section) if filtered else total).argmax(axis=0)


@pytest.mark.parametrize("number", range(3))
def test_labels_are_the_filtered_mean_over_rotations(tmp_path: Path, number: int) -> None:
    target, config = tiled(tmp_path), config_of(add_share=0)
    for label_filter in (True, False):
        asked = config.changed({"adaptation": {"label_filter": label_filter}})
        made = labels_of(target, asked).of(target.sections[number])
        expected = by_hand(network(1, config), target, number, filtered=label_filter)
        assert np.array_equal(made, expected)


def test_new_weights_make_new_labels_and_the_old_ones_come_again(tmp_path: Path) -> None:
    target, config = tiled(tmp_path), config_of()
    labeler = network(1, config)
    labels = SectionLabels(labeler, network(2, config), target, config, NO_PRIOR)
    section = target.sections[0]
    first, old = labels.of(section), {n: v.clone() for n, v in labeler.state_dict().items()}
    labeler.load_state_dict(network(3, config).state_dict())
    assert labels.of(section) is first  # until a new round begins
    labels.forget()
    assert not np.array_equal(labels.of(section), first)
    labeler.load_state_dict(old)
    labels.forget()
    assert np.array_equal(labels.of(section), first)


def test_labels_that_memory_does_not_hold_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, config = tiled(tmp_path), config_of(area_power=1.0)
    prior = np.array([np.nan, 0.4])
    whole = labels_of(target, config, prior)
    expected = [whole.of(section) for section in target.sections]
    monkeypatch.setattr(section_labels, "LABEL_CACHE_BYTES", 1)
    small = labels_of(target, config, prior)
    for number in (0, 1, 2, 0, 2, 1):
        assert np.array_equal(small.of(target.sections[number]), expected[number])


@pytest.mark.parametrize("turns", range(4))
def test_a_crop_has_the_labels_of_its_section(tmp_path: Path, turns: int) -> None:
    target = tiled(tmp_path)
    labels, section = labels_of(target, config_of()), target.sections[1]
    crop = Crop(section, 4, 8, 30, turns)
    found = np.rot90(labels.of_crop(crop), -turns)
    assert np.array_equal(found[:20, :16], labels.of(section)[4:, 8:])
    assert (found[20:] == I).all()
    assert (found[:, 16:] == I).all()


def test_the_area_of_a_round_is_the_priors(tmp_path: Path) -> None:
    """In the tiles that are labelled present; there must be 16 of them."""
    target = tiled(tmp_path, [((P, P), (P, A)) * 6, ((P, U), (P, P)) * 6, ((P, A), (P, P)) * 6])
    prior = np.array([np.nan, 0.35])
    corrected = labels_of(target, config_of(area_power=1.0, add_share=0), prior)
    shares = [
        (corrected.of(section)[:, half : half + SIDE // 2] == 1).mean()
        for section, half in zip(target.sections, (0, SIDE // 2, SIDE // 2), strict=True)
    ]
    assert np.mean(shares) == pytest.approx(0.35, abs=0.01)
    assert corrected.bias[0] == 0
    half = labels_of(target, config_of(area_power=0.5, add_share=0), prior)
    assert half.bias[1] == corrected.bias[1] / 2 != 0
    assert not labels_of(target, config_of(), prior).bias.any()


def test_a_pair_of_uninformative_classes_is_the_sources(tmp_path: Path) -> None:
    everywhere = [((P, P), (P, P))] * 3
    target, config = tiled(tmp_path, everywhere), config_of(add_share=0)
    section = target.sections[0]
    of_source = by_hand(network(2, config), target, 0)
    of_labeler = by_hand(network(1, config), target, 0)
    assert not np.array_equal(of_source, of_labeler)
    assert np.array_equal(labels_of(target, config).of(section), of_source)
    free = config_of(add_share=0, protect_uninformative=False)
    assert np.array_equal(labels_of(target, free).of(section), of_labeler)
    # A single label of six that says "absent" is enough to believe all of them.
    target = tiled(tmp_path, [((P, P), (P, P)), ((P, P), (P, P)), ((P, P), (P, A))])
    assert np.array_equal(labels_of(target, config).of(section), of_labeler)


def test_a_section_is_labelled_in_the_precision_of_training(tmp_path: Path) -> None:
    target, config = tiled(tmp_path), config_of(add_share=0)
    asked = config.changed({"adaptation": {"precision": "bf16"}})
    labeler, seen = network(1, config), list[torch.dtype]()
    labeler.head.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    labels = SectionLabels(labeler, network(2, config), target, asked, NO_PRIOR)
    labels.of(target.sections[0])
    assert seen == [torch.bfloat16] * 4


def test_the_mask_of_a_section_takes_the_place_of_its_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sections = [rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8) for _ in range(3)]
    masks = [rng.integers(0, 2, (SIDE, SIDE)).astype(np.uint8) for _ in range(3)]
    masks[1][:, :5] = I
    target = write_domain(tmp_path / "t.zarr", sections, masks, ["train"] * 3)
    without = labels_of(target, config_of())
    one = labels_of(target, config_of(masked_sections=1))
    upper = labels_of(target, config_of(masked_sections=("s1",), mask_rows=0.5))
    for number in (0, 2):
        section = target.sections[number]
        assert np.array_equal(one.of(section), without.of(section))
    made, kept = one.of(target.sections[1]), without.of(target.sections[1])
    assert np.array_equal(made[:, 5:], masks[1][:, 5:])
    assert np.array_equal(made[:, :5], kept[:, :5])
    half = upper.of(target.sections[1])
    assert np.array_equal(half[: SIDE // 2], made[: SIDE // 2])
    assert np.array_equal(half[SIDE // 2 :], kept[SIDE // 2 :])
    with pytest.raises(ValueError, match="4 masked"):
        labels_of(target, config_of(masked_sections=4))
