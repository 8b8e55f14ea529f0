"""Random changes of training crops; geometry lives in ``samples.py``, which must move masks too.

Legend: H height, W width.
"""

import numpy as np
from numpy.typing import NDArray

from models.config.augmentation import AugmentationConfig, StrongAugmentationConfig

_MID_GREY = 0.5

_BLUR_SIGMAS_PX = 0.5, 1.8
_CUTOUTS = 1, 3
_CUTOUT_SIDES_PX = 8, 28
_CONTRAST_LOSS = 0.8  # as a share of the gain: contrast 0.5 stands for factors from 0.6 to 1.5


def photometric(
    image: NDArray[np.float32], config: AugmentationConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return an image (H, W) in [0, 1] with random contrast, brightness and noise, clipped.

    Contrast changes about mid grey, not about the image's mean, so that padding cannot change it.
    With the probability of ``config.strong`` the image is changed by ``strong`` instead.
    """
    # Without a draw where nothing is strong: the random numbers stay those of earlier trainings.
    if config.strong.probability and rng.random() < config.strong.probability:
        return strong(image, config.strong, rng)
    contrast = 1 + rng.uniform(-config.contrast, config.contrast)
    brightness = rng.uniform(-config.brightness, config.brightness)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(config.noise_sigma)
    changed = (image - _MID_GREY) * contrast + (_MID_GREY + brightness) + noise
    return changed.clip(0.0, 1.0).astype(np.float32)


def strong(
    image: NDArray[np.float32], config: StrongAugmentationConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return an image (H, W) in [0, 1], float32, whose grey values are changed strongly, clipped.

    The changes are, in this order: a power; a Gaussian blur, or its opposite; contrast about mid
    grey and brightness; noise; squares of mid grey. ``config.probability`` is not read: the caller
    decides which images to change.
    """
    changed = image ** np.float32(np.exp(rng.uniform(-config.gamma, config.gamma)))
    changed = _focused(changed, config, rng)
    contrast = 1 + rng.uniform(-_CONTRAST_LOSS * config.contrast, config.contrast)
    brightness = rng.uniform(-config.brightness, config.brightness)
    sigma = rng.uniform(0, config.noise_sigma)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sigma)
    changed = (changed - _MID_GREY) * contrast + (_MID_GREY + brightness) + noise
    changed = changed.clip(0.0, 1.0).astype(np.float32)
    if rng.random() < config.cutouts:
        _cut_out(changed, rng)
    return changed


def _focused(
    image: NDArray[np.float32], config: StrongAugmentationConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    choice, sigma_px = rng.random(), rng.uniform(*_BLUR_SIGMAS_PX)
    if choice < config.blur:
        return blurred(image, sigma_px)
    if choice < config.blur + config.sharpen:
        return 2 * image - blurred(image, sigma_px)
    return image


def blurred(image: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Return an image (H, W) after a Gaussian blur of ``sigma_px``; borders are reflected.

    The Gaussian is cut off at three standard deviations.
    """
    radius = int(np.ceil(3 * sigma_px))
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    padded = np.pad(image, radius, mode="symmetric")
    height, width = image.shape
    rows = sum(k * padded[i : i + height] for i, k in enumerate(kernel))
    result: NDArray[np.float32] = sum(k * rows[:, i : i + width] for i, k in enumerate(kernel))
    return result


def _cut_out(image: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Make squares at random places mid grey, in place; at a border a part of one is left."""
    for _ in range(rng.integers(*_CUTOUTS, endpoint=True)):
        side = int(rng.integers(*_CUTOUT_SIDES_PX, endpoint=True))
        y0, x0 = (int(rng.integers(1 - side, length)) for length in image.shape)
        image[max(y0, 0) : y0 + side, max(x0, 0) : x0 + side] = _MID_GREY
