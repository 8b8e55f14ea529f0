"""Confusion matrices and DICE; free of torch, so the service may show them."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.data.domain import IGNORE
from models.frozen_config import FrozenConfig


class Evaluation(FrozenConfig):
    """How well masks were predicted, pooled over all pixels with a class.

    ``confusion[t][p]`` counts pixels of true class t predicted as p. ``dice`` is
    2TP / (2TP + FP + FN) per class in [0, 1], None for a class absent from the true masks;
    ``mean_dice`` is the mean over the other classes.
    """

    class_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    dice: tuple[float | None, ...]
    mean_dice: float | None

    @classmethod
    def of(cls, class_names: tuple[str, ...], confusion: NDArray[np.int64]) -> Self:
        """Score a confusion matrix (C, C)."""
        dice = dice_scores(confusion)
        occurring = [score for score in dice if score is not None]
        return cls(
            class_names=class_names,
            confusion=tuple(tuple(int(n) for n in row) for row in confusion),
            dice=dice,
            mean_dice=sum(occurring) / len(occurring) if occurring else None,
        )

    def values(self) -> Mapping[str, float]:
        """Return ``dice/<class>`` of the classes that occur and ``dice/mean``, for progress."""
        named = zip((*self.class_names, "mean"), (*self.dice, self.mean_dice), strict=True)
        return {f"dice/{name}": score for name, score in named if score is not None}


def confusion_matrix(
    mask: NDArray[np.uint8], prediction: NDArray[np.uint8], num_classes: int
) -> NDArray[np.int64]:
    """Count (true, predicted) pairs where ``mask`` is not 255; both (H, W), result (C, C)."""
    known = mask != IGNORE
    true, predicted = mask[known].astype(np.int64), prediction[known].astype(np.int64)
    highest = max(true.max(initial=0), predicted.max(initial=0))
    if highest >= num_classes:
        raise ValueError(f"class {highest} found, but there are only {num_classes} classes")
    counts = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def dice_scores(confusion: NDArray[np.int64]) -> tuple[float | None, ...]:
    """DICE per class of a confusion matrix (C, C); None where the class has no true pixel."""
    hits, true, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        2 * int(hit) / int(t + p) if t else None
        for hit, t, p in zip(hits, true, predicted, strict=True)
    )
