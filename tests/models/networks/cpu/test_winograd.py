"""Winograd's algorithm against exact sums."""

import torch

from models.networks.cpu.convolution import (
    Convolution,
)
from tests.models.networks.layers import with_gradients


def test_winograd_in_float32_is_near_the_exact_sums() -> None:
    layer = Convolution(128, 128, 3, padding=1, reflect=True)
    x = torch.randn(1, 128, 32, 32, generator=torch.manual_seed(0))
    y, gradients = with_gradients(layer, x)
    expected, exact_gradients = with_gradients(layer.double(), x.double())
    for ours, exact in zip((y, *gradients), (expected, *exact_gradients), strict=True):
        error = (ours - exact).abs().max() / exact.std()
        assert error.item() < 1e-4
