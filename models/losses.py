"""The losses of the paper and of CUT: pure functions of tensors.

Legend: B batch, C classes, H height, W width, P positions, D width of the embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.data.domain import IGNORE


def patch_nce(queries: Tensor, keys: Tensor, temperature: float = 0.07) -> Tensor:
    """PatchNCE (Park et al. 2020, Eq. 3) per position, (B, P), of unit vectors (B, P, D).

    The key at the query's own position is the positive, the other P - 1 keys of the same image are
    the negatives. No gradient reaches ``keys``.
    """
    similarity = queries @ keys.detach().transpose(1, 2) / temperature  # (B, P, P)
    own_position = torch.arange(queries.shape[1], device=queries.device)
    return F.cross_entropy(
        similarity.transpose(1, 2), own_position.expand(len(queries), -1), reduction="none"
    )


def lsgan(scores: Tensor, *, real: bool) -> Tensor:
    """Least-squares GAN: mean squared distance of a discriminator's map to 1 (real) or 0."""
    return (full_precision(scores) - float(real)).square().mean()


def cross_entropy(logits: Tensor, labels: Tensor, num_known: Tensor | None = None) -> Tensor:
    """Eq. 1 as the mean over pixels with a class, of (B, C, H, W) and int64 (B, H, W).

    Where every pixel is ignored (255) the loss and its gradient are exactly zero. ``num_known``
    divides in place of the number of pixels with a class, where these are part of a larger batch.
    The paper's further constant 1/C only rescales the learning rate and is left out.
    """
    total = F.cross_entropy(full_precision(logits), labels, ignore_index=IGNORE, reduction="sum")
    if num_known is None:
        num_known = (labels != IGNORE).sum()
    return total / num_known.clamp_min(1).to(total.dtype)


def full_precision(x: Tensor) -> Tensor:
    """bfloat16 as float32; wider types stay: losses are never computed in half precision."""
    return x.float() if x.dtype == torch.bfloat16 else x
