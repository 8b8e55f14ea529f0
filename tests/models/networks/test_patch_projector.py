"""Positions, projected features and their gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.losses import patch_nce
from models.networks.generator import Generator, tap_sizes
from models.networks.patch_projector import (
    PatchProjector,
    gather,
    sample_positions,
    unit_vectors,
)


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
