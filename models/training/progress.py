"""The reports of every stage; free of torch, so that the service may import them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# A new stage stands at the end: the place of a stage here numbers its random streams.
Stage = Literal["style", "pretrain", "stylise", "adapt", "evaluate", "register", "verdict", "probe"]

LABEL_SCORES = ("label_agreement", "label_probability")
"""Scores of a generator that need no masks; see ``style_selection.py``."""

EARLIER_LABEL_SCORES = ("confidence", "label_score")
"""Scores that earlier versions reported beside them."""


def is_score(name: str) -> bool:
    """Tell whether a value is a score of a validation, and not a loss of a step."""
    return "dice/" in name or name in LABEL_SCORES


@dataclass(frozen=True)
class Picture:
    """A piece (H, W) of an image, and a network's output for it, to look at.

    ``image`` and ``stylised`` are float32 in [0, 1], ``classes`` uint8 class ids.
    """

    image: NDArray[np.float32]
    stylised: NDArray[np.float32] | None = None
    classes: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Progress:
    """Step ``step`` (from 1) of ``total`` of a stage is done.

    ``values`` holds the losses of the step by name. At a step with a validation it also holds
    ``dice/<class>`` and ``dice/mean`` of the domain that the stage is for, and in adaptation
    ``source_dice/...``, all in [0, 1]; and ``LABEL_SCORES`` if generators are chosen. ``best`` then
    holds the scores of the weights that would be kept if the stage ended now, and their step as
    ``selected_step``. Step 0 is a validation before training.
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
"""A function that is called after each step; an exception that it raises ends the run."""


class Stop(Exception):
    """A report raises it to end the run for now; the state of the stage is saved first."""
