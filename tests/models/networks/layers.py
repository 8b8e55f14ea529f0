"""Gradients and counts of layers, for the tests of networks."""

import torch
from torch import Tensor, nn


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


Gradients = tuple[Tensor, ...]


def with_gradients(layer: nn.Module, x: Tensor, seed: int = 1) -> tuple[Tensor, Gradients]:
    """The output, and the gradients at input and parameters of a random one at the output."""
    x = x.detach().requires_grad_()
    y = layer(x)
    at_output = torch.randn(y.shape, generator=torch.manual_seed(seed)).to(y.dtype)
    return y, torch.autograd.grad(y, (x, *layer.parameters()), at_output)
