"""Untrained networks, whole sections as tensors and saved states, for tests of training steps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.config.augmentation import AugmentationConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.networks.unet import UNet
from models.training.loop import seeded_weights
from models.training.progress import Progress

STILL = AugmentationConfig(rotate=False, brightness=0, contrast=0, noise_sigma=0)
GROUP, BATCH = {"norm": "group"}, {"norm": "batch"}


def untrained(config: StyleFilterConfig) -> UNet:
    with seeded_weights(1):
        return UNet(2, config.segmenter)


def images(domain: Domain) -> Tensor:
    """All training sections, (3, 1, 48, 48) in [0, 1]."""
    sections = [domain.image(section) for section in domain.split("train")]
    return torch.from_numpy(np.stack(sections))[:, None]


def masks(domain: Domain) -> Tensor:
    sections = [domain.mask(section) for section in domain.split("train")]
    return torch.from_numpy(np.stack(sections).astype(np.int64))


def timeless(progress: Progress) -> Mapping[str, float]:
    return {name: value for name, value in progress.values.items() if name != "wait_share"}


def tensors(nested: Mapping[Any, Any], where: str = "") -> dict[str, Tensor]:
    """The tensors of nested mappings by their place."""
    found = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= tensors(value, f"{where}.{key}")
        elif isinstance(value, Tensor):
            found[f"{where}.{key}"] = value
    return found


def error_loop(reconstructed: Tensor, wanted: Tensor, inside: Tensor) -> float:
    """Image by image, pixel by pixel."""
    total, number = 0.0, 0
    for b, y, x in np.ndindex(tuple(inside.shape)):
        if inside[b, y, x]:
            total += (float(reconstructed[b, 0, y, x]) - float(wanted[b, 0, y, x])) ** 2
            number += 1
    return total / number
