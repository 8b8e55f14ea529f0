"""Instance norm against its definition."""

import pytest
import torch
from torch import Tensor

from models.config.stages import SegmenterConfig
from models.networks.cpu.instance_norm import InstanceNorm
from models.networks.unet import UNet
from tests.models.networks.layers import with_gradients


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("network", ["generator", "segmenter"])
def test_instance_norm_is_its_definition_in_every_layout(
    network: str, batch: int, layout: torch.memory_format
) -> None:
    """At batch 1 torch 2.13 on CPU answers a channels-last gradient with a wrong one."""
    of_segmenter = UNet(2, SegmenterConfig(base_filters=4, depth=1, norm="instance")).double()
    norm = InstanceNorm() if network == "generator" else of_segmenter.stem[1]
    x = torch.randn(batch, 4, 6, 5, generator=torch.manual_seed(0), dtype=torch.float64)
    at_output = torch.randn(x.shape, generator=torch.manual_seed(1), dtype=torch.float64)

    def defined(x: Tensor) -> Tensor:
        centred = x - x.mean((2, 3), keepdim=True)
        return centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()

    results = []
    for normalise, memory in ((norm, layout), (defined, torch.contiguous_format)):
        given = x.clone(memory_format=memory).requires_grad_()
        y = normalise(given)
        results.append((y, *torch.autograd.grad(y, given, at_output.clone(memory_format=memory))))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def test_instance_norm_of_bfloat16_is_computed_in_float32() -> None:
    """A mean of 64 and deviation 1: bfloat16's steps there are as large as half a deviation."""
    x = torch.randn(1, 2, 64, 64, generator=torch.manual_seed(0)).add_(64).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y, (gradient,) = with_gradients(InstanceNorm(), x)
    expected, (exact,) = with_gradients(InstanceNorm(), x.float())
    assert y.dtype == gradient.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected.bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(gradient.float(), exact, rtol=2**-7, atol=0.02)
