"""How every stage reports; free of torch, so the service may import it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Stage = Literal["style", "pretrain", "stylise", "adapt", "evaluate"]


LABEL_SCORES = ("label_agreement", "confidence", "label_score")
"""Scores of a generator that need no masks; see ``style_selection.py``."""


def is_score(name: str) -> bool:
    """Return whether a value is of a validation, not of a step."""
    return "dice/" in name or name in LABEL_SCORES


@dataclass(frozen=True)
class Picture:
    """A piece (H, W) of an image, and what a network makes of it: something to look at.

    ``image`` and ``stylised`` are float32 in [0, 1], ``classes`` uint8 class ids.
    """

    image: NDArray[np.float32]
    stylised: NDArray[np.float32] | None = None
    classes: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Progress:
    """Step ``step`` (from 1) of ``total`` of a stage is done.

    ``values`` holds the losses of the step. At steps with a validation also ``dice/<class>`` and
    ``dice/mean`` of the domain the stage is for, in adaptation ``source_dice/...`` too, all in
    [0, 1], and ``LABEL_SCORES`` where generators are chosen. ``best`` then holds the scores of the
    weights that would be kept if this were the end, and their step as ``selected_step``. Step 0
    is a validation before training.
    """

    stage: Stage
    step: int
    total: int
    values: Mapping[str, float]
    best: Mapping[str, float] | None = None
    picture: Picture | None = None

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        return f"{self.stage} {self.step}/{self.total} {values}".rstrip()


Report = Callable[[Progress], None]
"""Called after each step. To stop the run it raises; nothing in ``models`` catches that."""


class Stop(Exception):
    """Raised by a report to end the run for now: its state is saved before it ends."""
