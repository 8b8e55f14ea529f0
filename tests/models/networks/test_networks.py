"""CUT's networks and the U-Net, against definitions and finite differences."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import SegmenterConfig
from models.losses import patch_nce
from models.networks.cpu.convolution import (
    Convolution,
    RoundedProducts,
    cpu_has_bf16,
    winograd_from,
)
from models.networks.cpu.instance_norm import InstanceNorm
from models.networks.cpu.resampling import BlurDown, BlurUp
from models.networks.discriminator import Discriminator
from models.networks.generator import TAPS, Generator, tap_sizes
from models.networks.patch_projector import (
    PatchProjector,
    gather,
    sample_positions,
    unit_vectors,
)
from models.networks.unet import UNet


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


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


Gradients = tuple[Tensor, ...]


def with_gradients(layer: nn.Module, x: Tensor, seed: int = 1) -> tuple[Tensor, Gradients]:
    """The output, and the gradients at input and parameters of a random one at the output."""
    x = x.detach().requires_grad_()
    y = layer(x)
    at_output = torch.randn(y.shape, generator=torch.manual_seed(seed)).to(y.dtype)
    return y, torch.autograd.grad(y, (x, *layer.parameters()), at_output)


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
    with winograd_from(1):
        y, gradients = with_gradients(quick.double(), x)
    expected, expected_gradients = with_gradients(plain.double(), x)
    for ours, theirs in zip((y, *gradients), (expected, *expected_gradients), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_winograd_in_float32_is_near_the_exact_sums() -> None:
    layer = Convolution(128, 128, 3, padding=1, reflect=True)
    x = torch.randn(1, 128, 32, 32, generator=torch.manual_seed(0))
    y, gradients = with_gradients(layer, x)
    expected, exact_gradients = with_gradients(layer.double(), x.double())
    for ours, exact in zip((y, *gradients), (expected, *exact_gradients), strict=True):
        error = (ours - exact).abs().max() / exact.std()
        assert error.item() < 1e-4


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


@pytest.mark.skipif(cpu_has_bf16(), reason="this processor multiplies bfloat16 itself")
@pytest.mark.parametrize(("channels_in", "channels_out"), [(64, 64), (1, 8), (8, 1), (8, 8)])
def test_bfloat16_without_its_instructions_rounds_what_goes_in(
    channels_in: int, channels_out: int
) -> None:
    layer = Convolution(channels_in, channels_out, 3, padding=1)
    x = torch.randn(1, channels_in, 16, 16, generator=torch.manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        y, gradients = with_gradients(layer, x)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.bfloat16())
    expected = nn.Conv2d.forward(layer, x.bfloat16().float())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=2**-7, atol=1e-3)
    assert {gradient.dtype for gradient in gradients} == {torch.float32}


@pytest.mark.skipif(cpu_has_bf16(), reason="this processor multiplies bfloat16 itself")
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_rounded_products_are_those_of_torchs_bfloat16(kind: type[nn.Module]) -> None:
    layer = kind(8, 4, 2, stride=2)
    x = torch.randn(1, 8, 6, 6, generator=torch.manual_seed(0))
    plain, gradients = with_gradients(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        slow, slow_gradients = with_gradients(layer, x)
        with RoundedProducts():
            quick, quick_gradients = with_gradients(layer, x)
    assert quick.dtype == slow.dtype == torch.bfloat16
    torch.testing.assert_close(quick, slow, rtol=2**-7, atol=2**-8)
    for ours, theirs, exact in zip(quick_gradients, slow_gradients, gradients, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=2**-6, atol=2**-6)
        assert not torch.equal(ours, exact)
    with RoundedProducts():
        assert torch.equal(layer(x), plain)


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


def test_gather_picks_rows_then_columns() -> None:
    feature = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    picked = gather(feature, torch.tensor([7, 19]))
    assert picked.shape == (2, 2, 3)
    assert torch.equal(picked[:, 0], feature[:, :, 1, 2])
    assert torch.equal(picked[:, 1], feature[:, :, 3, 4])


def test_sampled_positions_are_distinct_and_bounded() -> None:
    few, many = sample_positions([10, 100], 30, np.random.default_rng(0))
    assert sorted(few.tolist()) == list(range(10))
    assert len(set(many.tolist())) == 30
    assert max(many.tolist()) < 100


def test_unit_vectors_are_finite_at_zero() -> None:
    vectors = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    units = unit_vectors(vectors)
    units.sum().backward()
    torch.testing.assert_close(units, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    assert bool(vectors.grad.isfinite().all())


@pytest.mark.parametrize("batch", [1, 2])
def test_nce_gradient_through_the_encoder_is_the_finite_difference(batch: int) -> None:
    """At batch 1 torch 2.13 on CPU answers a channels-last gradient with a wrong one."""
    torch.manual_seed(0)
    generator = Generator(base_filters=4, num_blocks=5).double()
    projector = PatchProjector(generator.tap_channels, width=8).double()
    for parameter in (*generator.parameters(), *projector.parameters()):
        nn.init.normal_(parameter, std=0.1)
    image, other = torch.randn(2, batch, 1, 16, 16, dtype=torch.float64)
    rng = np.random.default_rng(0)
    positions = sample_positions(tap_sizes(16, 16), 12, rng)
    keys = [key.detach() for key in projector(generator.encode(other), positions)]

    def loss() -> Tensor:
        queries = projector(generator.encode(image), positions)
        terms = [patch_nce(q, k, 0.5).mean() for q, k in zip(queries, keys, strict=True)]
        return torch.stack(terms).sum()

    loss().backward()
    for index in (4, 8):
        check_direction(generator.model[index].weight, loss)
    check_direction(generator.model[12].conv_block[1].weight, loss)
    check_direction(generator.model[16].conv_block[5].weight, loss)


def check_direction(weight: nn.Parameter, loss: object, step: float = 1e-6) -> None:
    direction = torch.randn_like(weight)
    with torch.no_grad():
        weight += step * direction
        above = loss()
        weight -= 2 * step * direction
        below = loss()
        weight += step * direction
    numeric = float(above - below) / (2 * step)
    assert float((weight.grad * direction).sum()) == pytest.approx(numeric, rel=1e-5)


@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
@pytest.mark.parametrize("size", [(32, 32), (33, 50), (61, 125), (49, 32)])
def test_unet_keeps_any_size(norm: str, size: tuple[int, int]) -> None:
    unet = UNet(3, SegmenterConfig(base_filters=4, norm=norm)).eval()
    assert unet(torch.zeros(2, 1, *size)).shape == (2, 3, *size)


def test_unet_refuses_what_its_poolings_would_erase() -> None:
    with pytest.raises(ValueError, match="31x40 px is smaller than 32 px"):
        UNet(3, SegmenterConfig(base_filters=4))(torch.zeros(1, 1, 31, 40))


@torch.no_grad()
def test_unet_concatenates_the_skip_first() -> None:
    """Without the weights of the second half of the channels, nothing deeper is seen."""
    unet = UNet(2, SegmenterConfig(base_filters=4, depth=1)).eval()
    x = torch.randn(1, 1, 8, 8, generator=torch.manual_seed(0))
    unet.ups[0].conv[0].weight[:, 4:] = 0
    shallow = unet(x)
    unet.downs[0][0].weight.mul_(2)
    assert torch.equal(unet(x), shallow)
    unet.ups[0].conv[0].weight[:, 4:] = 1
    assert not torch.equal(unet(x), shallow)
