"""Confusion matrices and DICE; free of torch, so that the service may import them."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.config.base import FrozenConfig
from models.data.domain import IGNORE


class Evaluation(FrozenConfig):
    """The scores of predicted masks, pooled over all pixels with a class.

    ``confusion[t][p]`` counts the pixels of class t that were predicted as class p. ``dice`` is
    2TP / (2TP + FP + FN) of each class, in [0, 1]; None for a class that the true masks lack.
    ``mean_dice`` is the mean over the classes with a DICE.
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
    """Count the pixels of each pair of a true and a predicted class: (C, C) int64.

    ``mask`` holds the true classes and ``prediction`` the predicted ones, both (H, W). Pixels
    whose mask is 255 are left out.

    Raises:
        ValueError: a class id is not below ``num_classes``.
    """
    known = mask != IGNORE
    true, predicted = mask[known].astype(np.int64), prediction[known].astype(np.int64)
    highest = max(true.max(initial=0), predicted.max(initial=0))
    if highest >= num_classes:
        raise ValueError(f"class {highest} found, but there are only {num_classes} classes")
    # A pair of classes as one number, so that one pass counts all pairs.
    counts = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def dice_scores(confusion: NDArray[np.int64]) -> tuple[float | None, ...]:
    """Return DICE, 2TP / (2TP + FP + FN), per class of a confusion matrix (C, C), in [0, 1].

    None stands for a class without a true pixel.
    """
    hits, true, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        2 * int(hit) / int(t + p) if t else None
        for hit, t, p in zip(hits, true, predicted, strict=True)
    )
