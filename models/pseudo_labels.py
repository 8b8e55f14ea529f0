"""Pseudo-labels of the target, plain (Eq. 2) and filtered by image-level labels (Eq. 3)."""

import torch
from torch import Tensor

from models.data.domain import IGNORE


def pseudo_labels(logits: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Most likely class per pixel among the allowed ones: (B, H, W) int64.

    ``logits`` is (B, C, H, W), ``allowed`` (B, C, H, W) bool. Eq. 3 multiplies probabilities by
    0 or 1; minus infinity on the logits selects the same class, and where nothing is allowed it
    lets us answer 255 (ignored), while the product would silently answer class 0.
    """
    if allowed is None:
        return logits.argmax(dim=1)  # Eq. 2
    labels = logits.masked_fill(~allowed, -torch.inf).argmax(dim=1)  # Eq. 3
    return labels.masked_fill(~allowed.any(dim=1), IGNORE)
