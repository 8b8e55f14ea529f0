"""Random changes of training crops; geometry lives in ``samples.py``, which must move masks too."""

import numpy as np
from numpy.typing import NDArray

from models.config import AugmentationConfig

_MID_GREY = 0.5


def photometric(
    image: NDArray[np.float32], config: AugmentationConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return an image (H, W) in [0, 1] with random contrast, brightness and noise, clipped.

    Contrast changes about mid grey, not about the image's mean, so that padding cannot change it.
    """
    contrast = 1 + rng.uniform(-config.contrast, config.contrast)
    brightness = rng.uniform(-config.brightness, config.brightness)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(config.noise_sigma)
    changed = (image - _MID_GREY) * contrast + (_MID_GREY + brightness) + noise
    return changed.clip(0.0, 1.0).astype(np.float32)
