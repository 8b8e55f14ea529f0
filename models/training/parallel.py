"""Several processes that train one network: torch.distributed, started by torchrun.

Every process holds the same weights, draws its own part of each batch and averages gradients with
the others. DistributedDataParallel's hooks would not do: a CUT step goes through its generator
three times and updates another network in between. Here gradients are exchanged once per step,
however many parts a batch has. Without a process group all of this does nothing.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.config.stages import Device

Value = TypeVar("Value")


@contextmanager
def process_group(device: Device) -> Iterator[None]:
    """Join the processes that torchrun started; each has the GPU of its number on this host."""
    if device == "cuda":
        # Before the group is made: NCCL takes the current device.
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def num_processes() -> int:
    """Return the number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def from_first(value: Value) -> Value:
    """Return the ``value`` of the first process, in every process."""
    if num_processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def gradients(optimisers: Iterable[torch.optim.Optimizer]) -> list[Tensor]:
    """Return the gradients of all parameters that have one."""
    return [
        parameter.grad
        for optimiser in optimisers
        for group in optimiser.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]


def average_gradients(own: Sequence[Tensor]) -> None:
    """Replace every gradient by its mean over the processes, in one exchange."""
    if num_processes() == 1:
        return
    # One exchange of one array: hundreds of small ones would wait for each other.
    flat = torch.cat([gradient.flatten() for gradient in own])
    dist.all_reduce(flat)
    flat /= num_processes()
    sizes = [gradient.numel() for gradient in own]
    for gradient, mean in zip(own, torch.split(flat, sizes), strict=True):
        gradient.copy_(mean.view_as(gradient))


def average_buffers(modules: Iterable[nn.Module]) -> None:
    """Replace floating-point buffers, batch norm's statistics, by their mean over the processes."""
    if num_processes() == 1:
        return
    for module in modules:
        for buffer in module.buffers():
            if buffer.is_floating_point():  # counts of batches are equal in all processes
                dist.all_reduce(buffer)
                buffer /= num_processes()


def mean_count(count: Tensor) -> Tensor:
    """Return the mean over the processes of a count, or of several in a tensor, as float64.

    A loss summed here and divided by it has, after ``average_gradients``, the gradient of the mean
    over the pixels of all processes.
    """
    mean = count.double()
    if num_processes() > 1:
        dist.all_reduce(mean)
        mean = mean / num_processes()
    return mean


def mean_values(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Return each value's mean over the processes, which all report the same names."""
    if num_processes() == 1:
        return dict(values)
    # Sorted, so that all processes exchange the values in one order.
    means = torch.tensor([values[name] for name in sorted(values)], device=device)
    dist.all_reduce(means)
    return dict(zip(sorted(values), (means / num_processes()).tolist(), strict=True))
