"""The decoder that reconstructs an image from the segmenter's code."""

import numpy as np
import pytest
import torch

from models.baselines.reconstruction import ReconstructionDecoder
from models.config.stages import SegmenterConfig
from models.losses import reconstruction_error
from models.networks.unet import UNet
from models.training.loop import seeded_weights, update
from tests.models.domains import squares, uniform


@pytest.mark.parametrize("depth", [1, 3, 4])
@pytest.mark.parametrize("size", [(64, 64), (45, 63), (33, 50)])
def test_the_image_has_the_inputs_size(depth: int, size: tuple[int, int]) -> None:
    config = SegmenterConfig(base_filters=4, depth=depth)
    encoder, reconstruct = UNet(2, config), ReconstructionDecoder(config)
    code = encoder.encode(uniform(0, 2, 1, *size).float())[-1]
    assert reconstruct(code, *size).shape == (2, 1, *size)


@pytest.mark.parametrize("depth", [2, 4])
def test_the_decoder_is_as_deep_and_wide_as_the_segmenters(depth: int) -> None:
    config = SegmenterConfig(base_filters=4, depth=depth)
    segmenter, reconstruct = UNet(3, config), ReconstructionDecoder(config)
    ups = [up.up.weight.shape for up in segmenter.ups]
    assert [up.weight.shape for up in reconstruct.ups] == ups
    for ours, theirs in zip(reconstruct.convs, segmenter.ups, strict=True):
        shapes = [[weight.shape for weight in conv.parameters()] for conv in (ours, theirs.conv)]
        outside, inside, *kernel = shapes[1][0]
        assert shapes[0] == [(outside, inside // 2, *kernel), *shapes[1][1:]]  # the skip's half


def test_the_output_is_linear() -> None:
    reconstruct = ReconstructionDecoder(SegmenterConfig(base_filters=4, depth=2))
    code = uniform(0, 1, 16, 8, 8).float()
    with torch.no_grad():
        before = reconstruct.eval()(code, 32, 32)
        reconstruct.head.weight.mul_(-1000)
        reconstruct.head.bias.mul_(-1000)
        torch.testing.assert_close(reconstruct(code, 32, 32), -1000 * before)
    assert float(before.abs().max()) > 1e-2


def test_a_pixel_depends_on_the_code_around_it_only() -> None:
    """Two convolutions of 3x3 at 1/1 and at 1/2: 2 px and 4 px, so two cells of 4 px each way."""
    reconstruct = ReconstructionDecoder(SegmenterConfig(base_filters=4, depth=2)).double().eval()
    code = uniform(0, 1, 16, 12, 12).requires_grad_()
    image = reconstruct(code, 48, 48)
    (at_code,) = torch.autograd.grad(image[0, 0, 24, 24], code)
    rows, cols = at_code.abs().sum(dim=(0, 1)).nonzero(as_tuple=True)
    assert {int(rows.min()), int(cols.min())} == {4}
    assert {int(rows.max()), int(cols.max())} == {7}


def test_one_image_can_be_overfitted() -> None:
    """Squares and gradients pass the bottleneck; the mean grey alone would leave 0.02 or more."""
    config = SegmenterConfig(base_filters=8, depth=2, norm="group")
    with seeded_weights(0):
        encoder, reconstruct = UNet(2, config), ReconstructionDecoder(config)
    image = torch.from_numpy(squares(32, 3)[0].astype(np.float32) / 255)[None, None]
    inside = torch.ones(1, 32, 32, dtype=torch.bool)
    weights = [*encoder.parameters(), *reconstruct.parameters()]
    optimiser, errors = torch.optim.Adam(weights, lr=5e-3), []
    for _ in range(300):
        code = encoder.encode(image * 2 - 1)[-1]
        loss = reconstruction_error(reconstruct(code, 32, 32), image, inside)
        errors += update([loss], optimiser)
    assert float(image.var()) > 0.01
    assert errors[-1] < 0.002
