"""Views: what they do to grey values, and that a stored one is the same to the bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.baselines.histogram import HistogramMatch
from models.choice.views import VIEWS, applied, fitted
from models.config.choice import ViewName
from models.config.presets import preset
from models.inference import Predictor
from models.metadata import RAW, ViewMeta
from models.networks.unet import UNet
from models.training.loop import seeded_weights
from tests.models.domains import square_domain

RAMP = np.linspace(0.2, 0.8, 101, dtype=np.float32).reshape(1, 101)


def test_raw_images_pass_unchanged() -> None:
    assert applied(RAW) is None


@pytest.mark.parametrize(
    ("name", "low", "middle", "high"),
    [("inverted", 0.8, 0.5, 0.2), ("stretched", 0.0, 0.5, 1.0)],
)
def test_grey_values_are_changed(name: ViewName, low: float, middle: float, high: float) -> None:
    view = applied(ViewMeta(name=name))
    assert view is not None
    changed = view(RAMP)
    assert changed.dtype == np.float32
    assert [changed[0, 0], changed[0, 50], changed[0, 100]] == pytest.approx([low, middle, high])


def test_the_stretch_maps_its_percentiles_and_leaves_a_flat_image() -> None:
    view = applied(ViewMeta(name="stretched"))
    assert view is not None
    changed = view(RAMP)
    assert (changed[0, 1], changed[0, 99]) == pytest.approx((0, 1), abs=1e-6)
    flat = np.full((4, 4), 0.3, np.float32)
    assert np.array_equal(view(flat), flat)


@pytest.mark.parametrize("name", list(VIEWS))
def test_a_stored_view_is_the_same(tmp_path: Path, name: ViewName) -> None:
    source = square_domain(tmp_path / "s.zarr")
    view = fitted(name, source)
    stored = ViewMeta.model_validate_json(view.model_dump_json())
    assert stored == view
    one, other = applied(view), applied(stored)
    image = np.random.default_rng(0).random((20, 30), np.float32)
    if one is None or other is None:
        assert one is other
        return
    assert np.array_equal(one(image), other(image))
    if name == "histogram":
        assert np.array_equal(one(image), HistogramMatch.to(source)(image))
    if name == "inverted_histogram":
        assert np.array_equal(one(image), HistogramMatch.to(source)(1 - image))


@pytest.mark.parametrize("name", ["raw", "inverted"])
def test_a_view_of_another_size_predicts_at_the_size_of_the_image(name: ViewName) -> None:
    with seeded_weights(0):
        segmenter = UNet(2, preset("smoke").segmenter).eval()
    image = np.random.default_rng(0).integers(0, 255, (40, 51)).astype(np.uint8)
    plain = Predictor(segmenter, 4.0, 32, view=applied(ViewMeta(name=name)))
    scaled = replace(plain, view=applied(ViewMeta(name=name, pixel_factor=1.25)))
    found, other, at_5_nm = (
        predictor.predict(image, 4.0, intensity_window=(0, 255), stylise=False)
        for predictor in (scaled, plain, replace(plain, working_nm=5.0))
    )
    assert scaled.seen_nm == 5.0
    assert found.mask.shape == image.shape
    assert np.array_equal(found.probabilities, at_5_nm.probabilities)
    assert not np.array_equal(found.probabilities, other.probabilities)


@pytest.mark.parametrize("factor", [0.4, 2.1])
def test_a_view_is_not_of_a_far_other_size(factor: float) -> None:
    with pytest.raises(ValueError, match="pixel_factor"):
        ViewMeta(pixel_factor=factor)


def test_a_predictor_applies_its_view_always_and_before_the_style() -> None:
    with seeded_weights(0):
        segmenter = UNet(2, preset("smoke").segmenter).eval()
    image = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)
    half = Predictor(segmenter, 4.0, 32, lambda image: image / 2)
    both = replace(half, view=applied(ViewMeta(name="inverted")))
    for stylise in (True, False):
        found, expected = (
            predictor.predict(pixels, 4.0, intensity_window=(0, 255), stylise=stylise)
            for predictor, pixels in ((both, image), (half, 255 - image))
        )
        assert np.allclose(found.probabilities, expected.probabilities, atol=1e-6)
