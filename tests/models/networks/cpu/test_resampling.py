"""Blurred resampling against its definition."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.cpu.resampling import BlurDown, BlurUp
from tests.models.networks.layers import with_gradients


def convolved(x: Tensor, kernel: list[float], stride: int) -> Tensor:
    taps = torch.tensor(kernel, dtype=x.dtype)
    square = torch.outer(taps, taps) / taps.sum() ** 2
    channels = x.shape[1]
    weight = square.expand(channels, 1, -1, -1)
    return F.conv2d(x, weight, stride=stride, groups=channels)


@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
def test_blur_down_is_its_definition(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.manual_seed(0))

    class Defined(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return convolved(F.pad(x, (1, 1, 1, 1), mode="reflect"), [1, 2, 1], stride=2)

    y, (gradient,) = with_gradients(BlurDown().double(), x)
    expected, (expected_gradient,) = with_gradients(Defined(), x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-14)


def test_blur_up_is_its_definition() -> None:
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, generator=torch.manual_seed(0))
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    weight = (4 * torch.outer(taps, taps)).expand(2, 1, 4, 4)
    spread = F.conv_transpose2d(padded, weight, stride=2, padding=2, groups=2)
    torch.testing.assert_close(BlurUp()(x), spread[..., 1:-1, 1:-1], rtol=0, atol=1e-14)
