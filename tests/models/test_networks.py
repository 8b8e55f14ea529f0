"""CUT's networks and the U-Net, against definitions and finite differences."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import SegmenterConfig
from models.losses import patch_nce
from models.networks.discriminator import Discriminator
from models.networks.generator import TAPS, BlurDown, BlurUp, Generator, tap_sizes
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
    weight = Generator(base_filters=16).model[12].conv_block[1].weight
    fan = 64 * 3 * 3
    assert weight.std().item() == pytest.approx(0.02 * (2 / (2 * fan)) ** 0.5, rel=0.02)
    assert not bool(Discriminator(base_filters=4).model[3].bias.any())


def convolved(x: Tensor, kernel: list[float], stride: int) -> Tensor:
    taps = torch.tensor(kernel, dtype=x.dtype)
    square = torch.outer(taps, taps) / taps.sum() ** 2
    channels = x.shape[1]
    weight = square.expand(channels, 1, -1, -1)
    return F.conv2d(x, weight, stride=stride, groups=channels)


@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
def test_blur_down_is_its_definition(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.manual_seed(0))
    expected = convolved(F.pad(x, (1, 1, 1, 1), mode="reflect"), [1, 2, 1], stride=2)
    torch.testing.assert_close(BlurDown().double()(x), expected, rtol=0, atol=1e-14)


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
