"""Candidates of one source-only segmenter: what they see, and what they say of labelled tiles."""

from pathlib import Path

import numpy as np
import pytest

from models.choice.candidates import Plain, Workshop
from models.choice.label_scores import gather
from models.choice.tiles import training_jury
from models.config.presets import preset
from models.data.tiles import relabelled
from models.inference import Predictor
from models.networks.unet import UNet
from models.stylefilter import StyleFilter
from models.training.loop import seeded_weights
from tests.models.domains import QUIET, square_domain

CONFIG = preset("smoke")


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    target = relabelled(square_domain(tmp_path / "t.zarr", bright=False), 16, splits=("train",))
    with seeded_weights(0):
        segmenter = UNet(2, CONFIG.segmenter)
    source = square_domain(tmp_path / "s.zarr")
    return Workshop(StyleFilter(source, target, CONFIG, QUIET, tmp_path / "work"), segmenter)


def test_a_candidate_sees_images_at_its_pixel_size(shop: Workshop) -> None:
    target, plain = shop.steps.target, Plain("inverted", pixel_factor=0.75)
    larger, section = shop.seen(plain), target.sections[0]
    assert larger.working_shape(section) == (64, 64)
    assert np.allclose(larger.image(section), 1 - target.at(3.0).image(section))
    tiles = (of.tile_windows(section) for of in (target, larger))
    assert [each.edges.max() for each in tiles] == [48, 64]
    judges = training_jury(target)
    found = shop.evidence(shop.source_only, plain, judges, lambda: None)
    predictor = Predictor(shop.source_only, 3.0, CONFIG.adaptation.crop_px)
    by_hand = gather(
        lambda image: predictor.probabilities(1 - image), target.at(3.0), judges.sections
    )
    assert np.array_equal(found.labels, by_hand.labels)
    assert np.allclose(found.peaks, by_hand.peaks)
    other = shop.evidence(shop.source_only, Plain("inverted"), judges, lambda: None)
    assert np.array_equal(found.labels, other.labels)
    assert not np.allclose(found.peaks, other.peaks)


def test_the_area_is_that_of_tiles_with_as_many_pixels(shop: Workshop) -> None:
    whole, larger = shop.prior(), shop.prior(Plain(pixel_factor=0.5))
    assert np.array_equal(whole, shop.prior(Plain("inverted")), equal_nan=True)
    # Of larger tiles a square of the source fills a smaller share.
    assert larger[1] < whole[1]
