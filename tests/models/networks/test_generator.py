"""The generator: parameters, start, and the features it gives."""

import numpy as np
import pytest
import torch
from torch import nn

from models.config.stages import SegmenterConfig
from models.networks.discriminator import Discriminator
from models.networks.generator import TAPS, Generator, tap_sizes
from models.networks.patch_projector import (
    PatchProjector,
)
from models.networks.unet import UNet
from tests.models.networks.layers import count


def test_parameter_counts_are_the_references() -> None:
    generator = Generator()
    assert count(generator) == 11_365_633
    assert count(Discriminator()) == 2_762_689
    assert count(PatchProjector(generator.tap_channels)) == 559_872
    assert count(UNet(11, SegmenterConfig())) == pytest.approx(31e6, rel=0.01)


def test_initial_weights_have_gain_002() -> None:
    torch.manual_seed(0)
    generator = Generator(base_filters=16)
    networks = (generator, Discriminator(base_filters=16), PatchProjector(generator.tap_channels))
    layers = [
        layer
        for network in networks
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    assert len(layers) == 24 + 5 + 10
    for layer in layers:
        outside, inside, *kernel = layer.weight.shape
        fans = (inside + outside) * np.prod(kernel)
        error = 4 / (2 * layer.weight.numel()) ** 0.5  # four deviations of the estimate
        assert layer.weight.std().item() == pytest.approx(0.02 * (2 / fans) ** 0.5, rel=error)
        assert not bool(layer.bias.any())


def test_taps_come_from_either_pass() -> None:
    torch.manual_seed(0)
    generator = Generator(base_filters=4, num_blocks=5)
    x = torch.rand(2, 1, 36, 28) * 2 - 1
    y, taps = generator.translate(x)
    assert torch.equal(y, generator(x))
    assert y.shape == x.shape
    assert len(taps) == len(TAPS)
    for tap, encoded, channels, size in zip(
        taps, generator.encode(x), generator.tap_channels, tap_sizes(36, 28), strict=True
    ):
        assert torch.equal(tap, encoded)
        assert tap.shape[1] == channels
        assert tap.shape[2] * tap.shape[3] == size
