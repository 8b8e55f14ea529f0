"""Batch norm's stored statistics, against numpy."""

import copy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.config.stages import SegmenterConfig
from models.networks.statistics import estimate_statistics, norms, statistics_kept
from models.networks.unet import UNet
from models.training.loop import seeded_weights
from tests.models.domains import equal_weights


class Unweighted(nn.Module):
    """A norm that sees its input as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y


def unequal_batches() -> list[Tensor]:
    """Of different sizes, means and spreads."""
    rng = np.random.default_rng(0)
    sizes = [(1, 2, 3, 5), (4, 2, 8, 8), (2, 2, 4, 4)]
    return [
        torch.from_numpy(rng.normal(shift, 1 + shift, size).astype(np.float32))
        for shift, size in enumerate(sizes)
    ]


def per_channel(batch: Tensor) -> NDArray[np.float64]:
    return batch.numpy().astype(np.float64).transpose(1, 0, 2, 3).reshape(2, -1)


def test_estimates_are_the_plain_mean_of_the_batches_statistics() -> None:
    network, batches = Unweighted(), unequal_batches()
    with torch.no_grad():
        network.norm.running_mean += 100  # what was stored before plays no part
    estimate_statistics(network, batches)
    means = np.mean([per_channel(batch).mean(axis=1) for batch in batches], axis=0)
    variances = np.mean([per_channel(batch).var(axis=1, ddof=1) for batch in batches], axis=0)
    np.testing.assert_allclose(network.norm.running_mean.numpy(), means, rtol=1e-5)
    np.testing.assert_allclose(network.norm.running_var.numpy(), variances, rtol=1e-5)
    assert network.norm.num_batches_tracked == 3


def test_evaluation_then_normalises_by_them() -> None:
    network, batches = Unweighted(), unequal_batches()
    estimate_statistics(network, batches[:1])
    with torch.no_grad():
        y = per_channel(network.eval()(batches[0]))
    count = y.shape[1]
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(axis=1), (count - 1) / count, rtol=1e-4)


def test_momentum_is_put_back_even_after_an_error() -> None:
    network = Unweighted()
    network.norm.momentum = 0.3
    estimate_statistics(network, unequal_batches())
    assert network.norm.momentum == 0.3
    with pytest.raises(RuntimeError):
        estimate_statistics(network, [torch.zeros(1, 3, 4, 4)])
    assert network.norm.momentum == 0.3
    with pytest.raises(RuntimeError), statistics_kept(network):
        network(torch.zeros(1, 3, 4, 4))
    assert network.norm.momentum == 0.3


def test_kept_statistics_do_not_move_but_normalise_by_the_batch() -> None:
    network, batch = Unweighted().train(), unequal_batches()[1]
    before = copy.deepcopy(network)
    with statistics_kept(network):
        y = network(batch)
    np.testing.assert_allclose(per_channel(y.detach()).mean(axis=1), 0, atol=1e-6)
    assert torch.equal(network.norm.running_mean, before.norm.running_mean)
    assert torch.equal(network.norm.running_var, before.norm.running_var)
    network(batch)
    expected = 0.1 * per_channel(batch).mean(axis=1)
    np.testing.assert_allclose(network.norm.running_mean.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
def test_of_a_unet_only_batch_norm_is_touched(norm: str) -> None:
    with seeded_weights(0):
        network = UNet(2, SegmenterConfig(base_filters=4, depth=2, norm=norm)).eval()
    before = copy.deepcopy(network)
    estimate_statistics(network, [torch.rand(2, 1, 16, 16, generator=torch.manual_seed(0))])
    assert len(norms(network)) == (10 if norm == "batch" else 0)
    assert equal_weights(network, before) == (norm != "batch")
    for parameter, old in zip(network.parameters(), before.parameters(), strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None
