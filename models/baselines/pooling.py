"""Pool a network's outputs at the positions of labelled regions.

Legend: B batch, D channels, S side of the crop, R regions, P positions.
"""

import torch
from torch import Tensor

from models.baselines.regions import Regions, grid_side
from models.losses import full_precision
from models.training.loop import to_device


def pooled(values: Tensor, regions: Regions) -> Tensor:
    """Average (B, D, S, S) over the pixels of each position: (R, P, D); 0 where there is none."""
    number, width = regions.sizes.shape
    positions = to_device(regions.positions.ravel(), values.device)
    by_channel = full_precision(values).transpose(0, 1).flatten(1)  # (D, B * S * S)
    # One position more than there are takes the pixels of no region, and is dropped.
    sums = by_channel.new_zeros(len(by_channel), number * width + 1)
    sums = sums.index_add(1, positions, by_channel)[:, :-1]
    # Positions that only fill up a region have no pixel.
    sizes = to_device(regions.sizes, values.device).clamp_min(1)
    return sums.T.reshape(number, width, len(sums)) / sizes[..., None]


def at_squares(values: Tensor, regions: Regions, stride: int) -> Tensor:
    """Read (R, P, D) off a map (B, D, h, w) whose values stand ``stride`` pixels apart.

    A position takes the value at the middle of its square of the pooling grid.
    """
    squares, pool = to_device(regions.squares, values.device), regions.pool_px
    side = grid_side(regions.positions.shape[-1], pool)
    middles = (torch.arange(side, device=values.device) * pool + pool // 2) // stride
    height, width = values.shape[-2:]
    rows, cols = middles.clamp_max(height - 1), middles.clamp_max(width - 1)
    grid = full_precision(values)[:, :, rows[:, None], cols]  # (B, D, G, G)
    return grid.permute(0, 2, 3, 1).flatten(0, 2)[squares]
