"""Score predictions by the few masks of a target that may be used; free of torch.

Legend: C classes, H height, W width, U blocks of masks.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.choice.bootstrap import redrawn
from models.choice.verdict import Interval
from models.config.rounds import RoundsConfig
from models.data.domain import IGNORE, Domain
from models.data.sections import Section
from models.labels_used.training_masks import masked_sections
from models.scores import confusion_matrix, dice_scores

BLOCKS = 4
"""A mask is cut into this many rows and columns of blocks, which the bootstrap draws again.

A mask says less than its number of pixels, because neighbours are alike."""


@dataclass(frozen=True)
class MaskPart:
    """The part of a section whose mask compares candidates; ``top`` and ``bottom`` are in [0, 1].

    They are shares of the section's height, because candidates see sections at several sizes.
    """

    section: Section
    top: float = 0.0
    bottom: float = 1.0

    def compared(self, target: Domain, prediction: NDArray[np.intp]) -> list[NDArray[np.int64]]:
        """Return the confusion matrix (C, C) of each block, of the section's prediction (H, W).

        Pixels that are predicted as a class that was not annotated in the section do not count.
        """
        height = len(prediction)
        rows = slice(round(self.top * height), round(self.bottom * height))
        predicted = prediction[rows].astype(np.uint8)
        mask = np.array(target.mask(self.section)[rows])
        mask[np.isin(predicted, self.section.unannotated or ())] = IGNORE
        pairs = zip(_blocks(mask), _blocks(predicted), strict=True)
        return [confusion_matrix(*pair, target.num_classes) for pair in pairs]


@dataclass(frozen=True)
class DividedMasks:
    """The masks that may be used, in two parts.

    ``rounds`` names those of ``training``, on which candidates are trained. By these, candidates
    that are not trained may be compared; ``judging`` compares all.
    """

    rounds: RoundsConfig
    training: tuple[MaskPart, ...] = ()
    judging: tuple[MaskPart, ...] = ()

    @classmethod
    def of(cls, target: Domain, rounds: RoundsConfig) -> Self:
        """Divide the masks that ``rounds`` allows.

        Of several sections every other one judges. Of one section its lower half does.

        Raises:
            ValueError: the target lacks a masked section that is asked for.
        """
        sections = masked_sections(target.sections, rounds.masked_sections)
        if not sections:
            return cls(rounds)
        if len(sections) == 1:
            half = rounds.mask_rows / 2
            training = (MaskPart(sections[0], bottom=half),)
            return cls(
                rounds.changed({"mask_rows": half}), training, (MaskPart(sections[0], half),)
            )
        names = tuple(section.name for section in sections[::2])
        return cls(
            rounds.changed({"masked_sections": names}),
            tuple(MaskPart(section, bottom=rounds.mask_rows) for section in sections[::2]),
            tuple(MaskPart(section) for section in sections[1::2]),
        )


@dataclass(frozen=True)
class MaskEvidence:
    """Tells how a prediction differs from masks: ``confusions`` (U, C, C), as in ``scores``."""

    confusions: NDArray[np.int64]

    @property
    def tells(self) -> bool:
        """Tell whether the masks hold two classes or more, so that they can compare candidates."""
        return bool(self.confusions.any(axis=(0, 2)).sum() > 1)

    def dice(self) -> tuple[float | None, ...]:
        """Return DICE of each class, in [0, 1]; None for a class that the masks lack."""
        return dice_scores(self.confusions.sum(axis=0))

    def loss(self) -> float:
        """Return 1 less the mean DICE of the classes that the masks have."""
        return float(_losses(self.confusions.sum(axis=0)))

    def gain_over(self, other: Self, seed: int = 0) -> Interval:
        """Return how much higher the mean DICE is than that of another prediction.

        The interval is a paired bootstrap of the blocks. Neighbouring blocks are alike, so it is
        somewhat too short.
        """
        draws = redrawn(len(self.confusions), seed)
        own, others = (
            _losses(np.tensordot(draws, each.confusions.astype(np.float64), axes=1))
            for each in (self, other)
        )
        low, high = np.quantile(others - own, [0.025, 0.975])
        return Interval(value=other.loss() - self.loss(), low=float(low), high=float(high))


def _losses(confusions: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return 1 less the mean DICE of confusion matrices, (...), of (..., C, C)."""
    counts = confusions.astype(np.float64)
    true, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    dice = np.zeros(hits.shape)
    np.divide(2 * hits, true + predicted, out=dice, where=true > 0)
    # A draw may miss all classes.
    return np.asarray(1 - dice.sum(axis=-1) / (true > 0).sum(axis=-1).clip(min=1))


def _blocks(array: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    rows = np.array_split(array, BLOCKS, axis=0)
    return [block for row in rows for block in np.array_split(row, BLOCKS, axis=1)]
