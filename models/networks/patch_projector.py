"""CUT's patch projector: features at sampled positions -> unit vectors (reference b3ac297).

Legend: B batch, C channels of a tap, P positions, D width of the embedding.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from models.losses import full_precision
from models.networks.generator import xavier_init

_EPSILON = 1e-7


class PatchProjector(nn.Module):
    """Two fully connected layers for each tap, followed by L2 normalisation."""

    def __init__(self, tap_channels: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))
            for channels in tap_channels
        )
        xavier_init(self)

    def forward(self, features: Sequence[Tensor], positions: Sequence[Tensor]) -> list[Tensor]:
        """Embed each tap's (B, C, H, W) at its flat ``positions`` (P,): a list of (B, P, D)."""
        return [
            unit_vectors(mlp(full_precision(gather(feature, at))))
            for mlp, feature, at in zip(self.mlps, features, positions, strict=True)
        ]


def sample_positions(
    sizes: Sequence[int], num_patches: int, rng: np.random.Generator
) -> list[Tensor]:
    """Draw per tap at most ``num_patches`` distinct flat positions (row * W + col), int64."""
    return [torch.from_numpy(rng.permutation(size)[:num_patches]) for size in sizes]


def gather(feature: Tensor, positions: Tensor) -> Tensor:
    """Pick (B, P, C) from (B, C, H, W) at flat positions (P,), the same for every image.

    It picks before any reshaping, which in one of the memory layouts would copy the whole map.
    """
    at, width = positions.to(feature.device), feature.shape[3]
    return feature.permute(0, 2, 3, 1)[:, at // width, at % width]


def unit_vectors(vectors: Tensor) -> Tensor:
    """Return v / (|v| + 1e-7) along the last axis, finite at zero vectors too."""
    # The root has no finite gradient at 0, so squares stay above it.
    squares = vectors.square().sum(-1, keepdim=True)
    lengths = squares.clamp_min(torch.finfo(vectors.dtype).tiny).sqrt()
    return vectors / (lengths + _EPSILON)
