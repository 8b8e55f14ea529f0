"""Two domains compared: contrast and sizes, with masks and without."""

from typing import Any

import numpy as np
import pytest

from models.data.compatibility import contrast, facts, thickness_ratios
from models.data.domain import Domain
from models.notebook import Description, open_arrays

NAMES = ["background", "organelle"]


def _pictures(
    seed: int, *, radius: int = 9, num: int = 4
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Grey sections with dark discs on a bright ground, and their masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:160, :160]
    images, masks = [], []
    for _ in range(num):
        mask = np.zeros((160, 160), np.uint8)
        for cy, cx in np.mgrid[40:160:40, 40:160:40].reshape(2, -1).T + rng.integers(-1, 2, 2):
            mask[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = 1
        image = 180 - 100.0 * mask + rng.normal(0, 8, mask.shape)
        images.append(image.clip(0, 255).astype(np.uint8))
        masks.append(mask)
    return images, masks


def _domain(
    images: list[np.ndarray],
    masks: list[np.ndarray] | None,
    nm: float = 4.0,
    working: float = 4.0,
    **facts: Any,
) -> Domain:
    description = Description(class_names=NAMES, pixel_size_nm=nm, **facts)
    domain = open_arrays(images, description, masks=masks)
    return Domain(domain.store, domain.info, domain.sections, domain.tiles, working_nm=working)


@pytest.mark.parametrize("masked", [True, False])
def test_inverted_contrast_is_seen_with_masks_and_without(masked: bool) -> None:
    images, masks = _pictures(1)
    others, their_masks = _pictures(2)
    source = facts(_domain(images, masks if masked else None))
    alike = facts(_domain(others, their_masks if masked else None))
    inverted = facts(_domain([255 - o for o in others], their_masks if masked else None))
    evidence = "masks" if masked else "images"
    assert (contrast(source, alike).inverted, contrast(source, alike).evidence) == (False, evidence)
    assert contrast(source, inverted).inverted is True
    assert contrast(inverted, source).inverted is True


def test_nothing_is_said_of_the_contrast_of_noise() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (160, 160), np.uint8) for _ in range(4)]
    images, _ = _pictures(1)
    assert contrast(facts(_domain(images, None)), facts(_domain(noise, None))).inverted is None


def test_thickness_is_measured_in_nanometres() -> None:
    images, masks = _pictures(1)
    source = facts(_domain(images, masks))
    assert source.classes["organelle"].thickness_nm == pytest.approx(9 * 4 * np.pi / 4, rel=0.05)
    wider, their_masks = _pictures(2, radius=18)
    ratios = thickness_ratios(source, facts(_domain(wider, their_masks)))
    assert ratios["organelle"] == pytest.approx(2, rel=0.05)
    # The same discs are as thick again once the pixels are said to be half as wide.
    halved = facts(_domain(wider, their_masks, nm=2.0))
    assert thickness_ratios(source, halved)["organelle"] == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("masked", [True, False])
def test_strips_and_padding_do_not_count(masked: bool) -> None:
    images, masks = _pictures(1)
    window = {"intensity_window": (0.0, 255.0)}
    plain = facts(_domain(images, masks if masked else None, **window))
    framed, their_masks = [], []
    for image, mask in zip(images, masks, strict=True):
        strip = np.zeros((40, 160), np.uint8)
        strip[10:20, 20:90] = 255  # a scale bar
        padded = np.pad(np.vstack([image, strip]), ((0, 0), (30, 0)), constant_values=0)
        framed.append(padded)
        their_masks.append(np.pad(mask, ((0, 40), (30, 0))))
    found = facts(_domain(framed, their_masks if masked else None, **window))
    assert found.grey_mean == pytest.approx(plain.grey_mean, abs=1e-6)
    assert found.grey_std == pytest.approx(plain.grey_std, abs=1e-6)
    assert found.skewness == pytest.approx(plain.skewness, abs=1e-6)
    assert found.classes == plain.classes


def test_void_does_not_count() -> None:
    images, masks = _pictures(1)
    window = {"intensity_window": (0.0, 255.0)}
    plain = facts(_domain(images, masks, **window))
    for image, mask in zip(images, masks, strict=True):
        corner = np.add.outer(np.arange(160), np.arange(160)) < 70
        image[corner], mask[corner] = 0, 0
    found = facts(_domain(images, masks, **window))
    assert found.grey_mean == pytest.approx(plain.grey_mean, abs=0.01)
    for name in NAMES:
        assert found.classes[name].grey == pytest.approx(plain.classes[name].grey, abs=0.01)


def test_sections_too_small_to_compare_are_said() -> None:
    images, masks = _pictures(1)
    with pytest.raises(ValueError, match="64 pixels a side at 40 nm"):
        facts(_domain(images, masks, nm=4.0, working=40.0))
