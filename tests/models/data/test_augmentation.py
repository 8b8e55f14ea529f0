"""Strong changes of grey values, and the zoom of source crops."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.config.augmentation import AugmentationConfig, StrongAugmentationConfig
from models.config.stages import PretrainConfig
from models.data.augmentation import blurred, photometric, strong
from models.data.domain import IGNORE
from models.data.samples import SourceBatch, source_batch
from models.data.sampling import Sample
from tests.models.domains import write_domain

OFF = dict.fromkeys(
    ("gamma", "blur", "sharpen", "contrast", "brightness", "noise_sigma", "cutouts"), 0.0
)
STILL = {"rotate": False, "brightness": 0, "contrast": 0, "noise_sigma": 0}


def image(value: float = 0.25, side: int = 64) -> NDArray[np.float32]:
    return np.full((side, side), value, np.float32)


def changed(fields: Mapping[str, float], times: int, value: float = 0.25) -> list[float]:
    """Return the grey value that ``value`` becomes, in each of ``times`` changes."""
    config, rng = StrongAugmentationConfig(**OFF | fields), np.random.default_rng(0)
    return [float(strong(image(value, 8), config, rng)[0, 0]) for _ in range(times)]


def test_nothing_changes_at_strengths_of_zero() -> None:
    noise = np.random.default_rng(1).random((40, 30), dtype=np.float32)
    config = StrongAugmentationConfig(**OFF)
    assert np.array_equal(strong(noise, config, np.random.default_rng(0)), noise)


@pytest.mark.parametrize(
    ("fields", "least", "most"),
    [
        ({"gamma": 0.5}, 0.25 ** np.exp(0.5), 0.25 ** np.exp(-0.5)),
        ({"contrast": 0.5}, 0.5 - 0.25 * 1.5, 0.5 - 0.25 * 0.6),
        ({"brightness": 0.2}, 0.05, 0.45),
    ],
)
def test_each_change_keeps_to_its_range(
    fields: dict[str, float], least: float, most: float
) -> None:
    values, width = changed(fields, 300), most - least
    assert least - 1e-6 <= min(values) < least + 0.05 * width
    assert most - 0.05 * width < max(values) <= most + 1e-6


def test_the_noise_is_drawn_up_to_its_strength() -> None:
    config, rng = StrongAugmentationConfig(**OFF | {"noise_sigma": 0.12}), np.random.default_rng(0)
    sigmas = [strong(image(0.5), config, rng).std() for _ in range(200)]
    assert min(sigmas) < 0.01
    assert 0.11 < max(sigmas) < 0.125


def test_a_blur_is_the_gaussian_of_its_width() -> None:
    point = image(0)
    point[32, 32] = 1
    spread = blurred(point, 1.5)
    y, x = np.indices(point.shape) - 32
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert (spread * y**2).sum() == pytest.approx(1.5**2, rel=0.03)
    assert (spread * x**2).sum() == pytest.approx(1.5**2, rel=0.03)
    np.testing.assert_allclose(spread, spread.T, atol=1e-7)
    np.testing.assert_allclose(blurred(image(0.3), 1.8), 0.3, rtol=1e-5)  # the borders, too


def test_blurring_takes_an_edge_away_and_sharpening_adds_to_it() -> None:
    edge = image(0.3)
    edge[:, 32:] = 0.7
    rng = np.random.default_rng(0)
    steepest = {
        name: np.abs(np.diff(strong(edge, StrongAugmentationConfig(**OFF | {name: 1}), rng))).max()
        for name in ("blur", "sharpen")
    }
    assert steepest["blur"] < 0.35 < 0.4 < steepest["sharpen"]


def test_one_to_three_squares_are_cut_out() -> None:
    config, rng = StrongAugmentationConfig(**OFF | {"cutouts": 1}), np.random.default_rng(0)
    areas = []
    for _ in range(100):
        found = strong(image(0.25, 256), config, rng)
        assert set(np.unique(found)) <= {np.float32(0.25), np.float32(0.5)}
        areas.append((found == 0.5).sum())
    assert max(areas) <= 3 * 28**2
    assert np.mean(areas) == pytest.approx(2 * (18**2 + 37), rel=0.2)  # the mean of a side squared


def test_the_probability_chooses_between_strong_and_ordinary_changes() -> None:
    black = AugmentationConfig(**STILL, strong={**OFF, "probability": 0.25, "cutouts": 1})
    rng = np.random.default_rng(0)
    strongly = [photometric(image(), black, rng).max() == 0.5 for _ in range(400)]
    assert np.mean(strongly) == pytest.approx(0.25, abs=0.06)
    never = AugmentationConfig(strong={"probability": 0, "gamma": 2})
    same = [
        photometric(image(), c, np.random.default_rng(3)) for c in (AugmentationConfig(), never)
    ]
    assert np.array_equal(*same)


def zoomed(folder: Path, zoom: float, seeds: int, crop_px: int = 32) -> list[SourceBatch]:
    """Return crops of a section whose grey value rises from left to right, and classes with it."""
    columns = np.broadcast_to(np.arange(256, dtype=np.uint8), (256, 256))
    domain = write_domain(
        folder / "d.zarr",
        [columns],
        [(columns // 64).astype(np.uint8)],
        ["train"],
        class_names=("a", "b", "c", "d"),
        intensity_window=(0, 255),
    )
    config = PretrainConfig(crop_px=crop_px, augmentation=AugmentationConfig(**STILL, zoom=zoom))
    return [
        source_batch(domain, [Sample(domain.sections[0], np.random.default_rng(seed))], config)
        for seed in range(seeds)
    ]


def test_a_zoom_enlarges_and_shrinks_image_and_mask_alike(tmp_path: Path) -> None:
    batches = zoomed(tmp_path, 0.5, 200)
    for batch in batches:
        assert batch.images.shape == (1, 1, 32, 32)
        assert batch.inside.all()
        # At the border of two classes a pixel may be mostly of either.
        grey = batch.images[0, 0] * 255
        assert (np.abs(batch.masks[0] * 64 + 31.5 - grey) < 33).all()
    slopes = [float(np.diff(batch.images[0, 0, 16, 8:24] * 255).mean()) for batch in batches]
    assert np.exp(-0.5) * 0.97 < min(slopes) < np.exp(-0.5) * 1.07
    assert np.exp(0.5) * 0.93 < max(slopes) < np.exp(0.5) * 1.03


def test_a_window_larger_than_the_section_is_padded(tmp_path: Path) -> None:
    batches = zoomed(tmp_path, 0.5, 20, crop_px=256)
    shares = [batch.inside.mean() for batch in batches]
    assert min(shares) < 0.7
    assert max(shares) == 1
    for batch in batches:
        assert (batch.masks[~batch.inside] == IGNORE).all()
        assert (batch.masks[batch.inside] != IGNORE).mean() > 0.98  # but a line at the border
        assert (batch.images[:, 0][~batch.inside] == 0).all()


def test_without_zoom_the_random_numbers_are_those_of_before(tmp_path: Path) -> None:
    (batch,) = zoomed(tmp_path, 0, 1)
    rng = np.random.default_rng(0)
    y0, x0 = int(rng.integers(225)), int(rng.integers(225))
    assert y0 >= 0
    assert np.array_equal(np.rint(batch.images[0, 0, 0] * 255), np.arange(x0, x0 + 32))
