"""Convolutions for processors against torch's."""

import pytest
import torch
from torch import nn

from models.networks.cpu.convolution import Convolution
from tests.models.domains import NEEDS_BF16
from tests.models.networks.layers import with_gradients


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (31, 34), (70, 90)])
@pytest.mark.parametrize(
    ("channels_in", "channels_out", "kernel", "padding", "reflect"),
    [
        (3, 5, 3, 1, False),
        (3, 5, 3, 1, True),
        (5, 3, 4, 1, False),
        (1, 3, 7, 0, False),
        (3, 1, 7, 0, False),
        (1, 3, 4, 1, False),
        (3, 1, 4, 1, False),
    ],
)
def test_a_quick_convolution_is_torchs(
    size: tuple[int, int],
    channels_in: int,
    channels_out: int,
    kernel: int,
    padding: int,
    reflect: bool,
) -> None:
    quick = Convolution(channels_in, channels_out, kernel, padding=padding, reflect=reflect)
    mode = "reflect" if reflect else "zeros"
    plain = nn.Conv2d(channels_in, channels_out, kernel, padding=padding, padding_mode=mode)
    plain.load_state_dict(quick.state_dict())
    x = torch.randn(2, channels_in, *size, generator=torch.manual_seed(0), dtype=torch.float64)
    quick.winograd_from = 1
    y, gradients = with_gradients(quick.double(), x)
    expected, expected_gradients = with_gradients(plain.double(), x)
    for ours, theirs in zip((y, *gradients), (expected, *expected_gradients), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_frozen_weights_get_no_gradient_and_pass_one_on() -> None:
    layer = Convolution(64, 64, 3, padding=1).double()
    x = torch.randn(1, 64, 8, 8, generator=torch.manual_seed(0), dtype=torch.float64)
    expected = with_gradients(layer, x)[1][0]
    at_output = torch.randn(1, 64, 8, 8, generator=torch.manual_seed(1)).double()
    layer.requires_grad_(False)
    x.requires_grad_()
    layer(x).backward(at_output)
    torch.testing.assert_close(x.grad, expected)
    assert layer.weight.grad is None


@NEEDS_BF16
@pytest.mark.parametrize(("channels_in", "channels_out"), [(64, 64), (1, 8), (8, 1), (8, 8)])
def test_bfloat16_rounds_what_goes_in(channels_in: int, channels_out: int) -> None:
    layer = Convolution(channels_in, channels_out, 3, padding=1)
    x = torch.randn(1, channels_in, 16, 16, generator=torch.manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        y, gradients = with_gradients(layer, x)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.bfloat16())
    expected = nn.Conv2d.forward(layer, x.bfloat16().float())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=2**-7, atol=1e-2)
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
