"""A loss beside Eq. 1 for rare classes, whose pixels cross-entropy hardly counts.

Legend: B batch, C classes, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from models.data.domain import Domain
from models.losses import full_precision, overlap, soft_dice
from models.training.parallel import mean_count, num_processes

SMOOTHING_PX = 100
"""The pixels that are added to both sides of the ratio, so that a batch of few pixels counts less.
[A]"""


@dataclass(frozen=True)
class RareDice:
    """``weight`` (1 - soft Dice), in the mean over the ``rare`` classes, int64 (R,).

    It is one loss of the whole batch, of all its parts and all processes. Each part and process
    adds the gradient of its own pixels, so that parts and processes leave the gradient as it is.
    The parts need ``whole``, the overlap (2, C) of the batch in the mean over the processes; it is
    None where a batch is computed at once.
    """

    weight: float
    rare: Tensor
    whole: Tensor | None = None
    num_parts: int = 1

    @classmethod
    def of(cls, source: Domain, weight: float, device: torch.device) -> Self | None:
        """Return the loss for a source's training masks; None where it is 0.

        That is so if ``weight`` is 0, or if the masks have no rare class.
        """
        rare = rare_classes(source) if weight else []
        return cls(weight, torch.tensor(rare, device=device)) if rare else None

    def of_parts(self, overlaps: Sequence[Tensor]) -> Self:
        """Return the loss of each part of a batch whose parts have these overlaps, (2, C) each."""
        whole = mean_count(torch.stack(list(overlaps)).sum(0))
        return replace(self, whole=whole, num_parts=len(overlaps))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return a part's share of the loss (); the shares of a batch sum up to its loss.

        ``logits`` is (B, C, H, W), ``labels`` int64 (B, H, W) with 255 where there is no class.
        """
        own = overlap(logits, labels)
        whole = mean_count(own.detach()) if self.whole is None else self.whole
        # Sums in the mean over the processes, so the smoothing is a process's share of it, too.
        dice = soft_dice(whole + (own - own.detach()), SMOOTHING_PX / num_processes())
        loss = self.weight * (1 - dice[self.rare].mean())
        shared = loss - (1 - 1 / self.num_parts) * loss.detach()
        return shared.to(full_precision(logits).dtype)


def rare_classes(source: Domain) -> list[int]:
    """Return the ids of the classes in the training masks, without that of the most pixels.

    Of two classes with as many pixels the one with the lower id counts as the more frequent. Pixels
    are counted at the working size.
    """
    pixels = np.zeros(source.num_classes, dtype=np.int64)
    for section in source.training_sections(masked=True):
        pixels += np.bincount(source.mask(section).ravel(), minlength=256)[: source.num_classes]
    return [int(c) for c in np.flatnonzero(pixels) if c != pixels.argmax()]
