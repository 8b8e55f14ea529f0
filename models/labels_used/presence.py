"""A loss by which a label "present" is learnt, and not only "absent": multiple-instance learning.

A tile labelled present has to hold some pixels of the class, so the pixels that look most like it
are pushed towards it. A tile labelled absent holds none, so the same pixels are pushed away.

Legend: B batch, C classes, S side of the crop, R tiles in the crops, P pixels of the largest one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models.baselines.regions import RegionMap
from models.data.labels import PRESENT
from models.losses import full_precision, some
from models.training.loop import to_device


@dataclass(frozen=True)
class TilePixels:
    """The tiles in a batch of crops: their labels, and the pixels of each.

    ``labels`` is (R, C) in {-1, 0, 1}, int64. ``pixels`` (R, P) int64 holds flat indices into
    (B, S, S), and -1 where a tile has fewer than P.
    """

    labels: NDArray[np.int64]
    pixels: NDArray[np.int64]

    @classmethod
    def of(cls, crops: Sequence[RegionMap]) -> Self:
        """List the pixels of the tiles that ``regions.tiles_of`` found in each crop."""
        labels = np.concatenate([of_crop for _, of_crop in crops])
        sizes = [len(of_crop) for _, of_crop in crops]
        before = np.cumsum(sizes) - sizes
        maps = np.stack(
            [np.where(m < 0, -1, m + n) for (m, _), n in zip(crops, before, strict=True)]
        )
        places = np.flatnonzero(maps >= 0)
        tiles = maps.ravel()[places]
        order = np.argsort(tiles, kind="stable")
        counts = np.bincount(tiles, minlength=len(labels))
        pixels = np.full((len(labels), max(1, counts.max(initial=0))), -1)
        # Sorted by tile, a pixel's column is its distance from the first of its tile.
        column = np.arange(len(order)) - (np.cumsum(counts) - counts)[tiles[order]]
        pixels[tiles[order], column] = places[order]
        return cls(labels, pixels)


def log_odds(logits: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of each class's probability p, (B, C, S, S), from logits alike.

    That is each logit less the log-sum-exp of the others.
    """
    others = [
        torch.cat([logits[:, :number], logits[:, number + 1 :]], dim=1).logsumexp(1)
        for number in range(logits.shape[1])
    ]
    return logits - torch.stack(others, dim=1)


def presence_loss(
    logits: Tensor, tiles: TilePixels, share: float, num_known: Tensor | None = None
) -> Tensor:
    """Return the mean over the known labels (R, C) of the loss of a tile's top pixels, as ().

    The top pixels are the ``share`` of the tile (at least one) with the highest log-odds z. If the
    label is *present*, the loss is their mean softplus(-z) = -log p, if it is *absent*, their mean
    softplus(z) = -log(1 - p). A tile that the crop cuts testifies to absence alone, as
    ``regions.tiles_of`` has it. If no label is known, the loss and its gradient are exactly zero.
    For a part of a larger batch, ``num_known`` () is the divisor in place of the number of known
    labels. ``logits`` is (B, C, S, S).
    """
    pixels, labels = (to_device(array, logits.device) for array in (tiles.pixels, tiles.labels))
    filled = pixels >= 0  # (R, P)
    z = log_odds(full_precision(logits)).permute(0, 2, 3, 1).flatten(0, 2)  # (B * S * S, C)
    z = z[pixels.clamp_min(0)].masked_fill(~filled[..., None], -torch.inf)  # (R, P, C)
    number = (share * filled.sum(1)).round().long().clamp_min(1)  # (R,)
    top = z.topk(int(number.max()) if len(number) else 1, dim=1).values
    left_out = (torch.arange(top.shape[1], device=top.device) >= number[:, None])[..., None]
    sign = torch.where(labels == PRESENT, -1.0, 1.0)[:, None].to(top.dtype)  # (R, 1, C)
    # Filled before softplus too: the gradient of softplus(-inf), times 0, is NaN.
    errors = F.softplus(sign * top.masked_fill(left_out, 0)).masked_fill(left_out, 0)
    means = errors.sum(1) / number[:, None]  # (R, C)
    known = labels >= 0
    if num_known is None:
        num_known = known.sum()
    return means.masked_fill(~known, 0).sum() / some(num_known).to(means.dtype)
