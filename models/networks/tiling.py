"""Apply networks to large images in overlapping tiles, and blend the results smoothly.

Legend: H, W size of the image, T side of a tile, V overlap of neighbours, C channels of the output.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from models.networks.sizes import TILE_PX, WHOLE_PX


@dataclass(frozen=True)
class Tiling:
    """The sizes of tiles. An image of up to ``whole_px`` on both sides is taken whole."""

    whole_px: int = WHOLE_PX
    tile_px: int = TILE_PX
    overlap_px: int = 128


def apply_tiled(
    network: Callable[[Tensor], Tensor], image: Tensor, tiling: Tiling = Tiling()
) -> Tensor:
    """Apply a network that keeps H and W to an image (1, 1, H, W), and return (1, C, H, W)."""
    height, width = image.shape[-2:]
    if max(height, width) <= tiling.whole_px:
        return network(image)
    total, weight = torch.zeros(()), torch.zeros(1, 1, height, width)
    for y0, x0 in product(_starts(height, tiling), _starts(width, tiling)):
        window = (..., slice(y0, y0 + tiling.tile_px), slice(x0, x0 + tiling.tile_px))
        output = network(image[window])
        if total.ndim == 0:
            total = torch.zeros(1, output.shape[1], height, width)
        # Near its own border a tile lacks context, so its say falls towards the border.
        ramp = _ramp(output.shape[-2], tiling)[:, None] * _ramp(output.shape[-1], tiling)
        total[window] += output * ramp
        weight[window] += ramp
    return total / weight


def _starts(side: int, tiling: Tiling) -> list[int]:
    """Return the first pixel of each tile along a side; the last tile ends with the image."""
    last = max(0, side - tiling.tile_px)
    return [*range(0, last, tiling.tile_px - tiling.overlap_px), last]


def _ramp(side: int, tiling: Tiling) -> Tensor:
    """Return weights (side,) that rise from both ends over the overlap and are never zero."""
    from_edge = torch.minimum(torch.arange(1, side + 1), torch.arange(side, 0, -1))
    return from_edge.clamp_max(tiling.overlap_px + 1) / (tiling.overlap_px + 1)
