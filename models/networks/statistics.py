"""Batch norm's stored statistics, and the choice of the images that they describe.

In training batch norm normalises each batch by the batch's own mean and variance, in evaluation by
stored ones: a running mean over the last ten batches or so. With one or a few crops per batch this
mean is noisy, and if two domains take turns it describes neither.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the batch norm layers of a network; none for other norms."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Leave the stored statistics as they are in all passes inside, in training mode too."""
    momenta = [(norm, norm.momentum) for norm in norms(network)]
    for norm, _ in momenta:
        norm.momentum = 0.0  # the share of the new batch
    try:
        yield
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum


@torch.no_grad()
def estimate_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Store the plain mean of the batches' statistics under the present weights.

    This is AdaBN (Li et al. 2016) with the precise statistics of Wu and Johnson (2021, "Rethinking
    Batch in BatchNorm"). ``batches`` are network inputs (B, 1, H, W). ``network`` is left in
    training mode; a network without batch norm is left alone.
    """
    momenta = [(norm, norm.momentum) for norm in norms(network)]
    if not momenta:
        return
    for norm, _ in momenta:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    try:
        network.train()
        for batch in batches:
            network(batch)
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
