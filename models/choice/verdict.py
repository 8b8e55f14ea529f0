"""The verdict of a target's labels on several ways to segment it; free of torch."""

from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field

from models.config.base import FrozenConfig

Outcome = Literal["better", "not_told", "worse", "not_judged"]

_FILE = "verdict.json"

_NORMAL_95 = 1.959964  # the 97.5th percentile of the normal distribution


class Interval(FrozenConfig):
    """An estimate with its 95 % interval."""

    value: float = Field(description="The estimate.")
    low: float = Field(description="The 2.5th percentile of its bootstrap.")
    high: float = Field(description="The 97.5th percentile of its bootstrap.")

    @property
    def told(self) -> bool:
        """Tell whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


class Rate(FrozenConfig):
    """A number of tiles with an error, and the 95 % interval of their share (Wilson 1927)."""

    wrong: int = Field(description="The number of tiles with the error.")
    of: int = Field(description="The number of tiles that could have it.")
    low: float = Field(description="The lower end of the interval of the share, from 0 to 1.")
    high: float = Field(description="The upper end.")

    @classmethod
    def count(cls, wrong: int, of: int) -> Self:
        """Return a rate with its interval; without tiles the interval is from 0 to 1."""
        if not of:
            return cls(wrong=0, of=0, low=0.0, high=1.0)
        share, z2 = wrong / of, _NORMAL_95**2
        middle = share + z2 / (2 * of)
        spread = _NORMAL_95 * np.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
        low, high = ((middle + sign * spread) / (1 + z2 / of) for sign in (-1, 1))
        return cls(wrong=wrong, of=of, low=max(0.0, float(low)), high=min(1.0, float(high)))


class ClassVerdict(FrozenConfig):
    """The errors of one candidate for one class, counted in labelled tiles."""

    misses: Rate = Field(
        description="Tiles whose labels call the class present, where the prediction has it on "
        "less than 1 % of the tile; and points of the class, near which the prediction lacks it."
    )
    claims: Rate = Field(
        description="Tiles whose labels call the class absent, where the prediction has it on 1 % "
        "of the tile or more; and points that are not of the class, where the prediction has it."
    )
    balanced_accuracy: float | None = Field(
        description="The mean of the shares of present and of absent tiles without an error; none "
        "if one of the two kinds is missing."
    )
    f1: float | None = Field(
        description="F1 of the tiles in which the class is found, from 0 to 1; none if no tile "
        "calls it present."
    )
    area: float | None = Field(
        description="The mean predicted share of the tiles that are called present; none without "
        "such tiles."
    )
    source_area: float | None = Field(
        description="The mean share that the class has of those tiles of the source's masks that "
        "hold it; none if it is not known."
    )
    dice: float | None = Field(
        description="DICE on the target's test masks, from 0 to 1; none without such masks."
    )
    mask_dice: float | None = Field(
        None,
        description="DICE on the masks that compare the candidates, from 0 to 1; none where no "
        "masks do.",
    )


class CandidateVerdict(FrozenConfig):
    """One way to segment the target, and what the labels say of it."""

    name: str = Field(description="The name of the candidate.")
    title: str = Field(description="The candidate in words.")
    loss: float | None = Field(
        description="The log-loss of the labels, by which candidates are chosen: lower is better. "
        "If masks compare candidates, it is 1 less the mean DICE on them. None without labels and "
        "masks."
    )
    gain: Interval | None = Field(
        description="The loss of the source-only model less the loss of this one, with its 95 % "
        "interval: above 0 this one is better. None for the source-only model itself, and where no "
        "class can be judged."
    )
    trained_on_labels: bool = Field(
        description="`true` if the candidate was trained on the same labels, which flatter it."
    )
    classes: dict[str, ClassVerdict] = Field(description="The errors for each class.")
    mean_dice: float | None = Field(
        description="The mean of DICE over the classes that the test masks have."
    )


class Verdict(FrozenConfig):
    """The judgement of the target's labels about the candidates, and what to do."""

    outcome: Outcome = Field(
        description="`better`: the labels prefer a candidate to the source-only model, by more "
        "than chance. `worse`: they prefer the source-only model. `not_told`: the difference may "
        "be chance, or is too small to matter. `not_judged`: there are too few labels to judge any "
        "class."
    )
    use: str = Field(
        description="The name of the candidate to use: the source-only model unless `outcome` is "
        "`better`."
    )
    num_tiles: int = Field(description="The number of labelled tiles that were compared.")
    num_points: int = Field(
        0, description="The number of points that were compared; each counts like a tile."
    )
    num_sections: int = Field(description="The number of their sections.")
    judged_by: Literal["labels", "masks"] = Field(
        "labels",
        description="`labels`: the labels of tiles compared the candidates. `masks`: the masks of "
        "the sections that `rounds.masked_sections` names did, in the part that no candidate was "
        "trained on.",
    )
    candidates: tuple[CandidateVerdict, ...] = Field(
        description="All candidates; the first one is the source-only model."
    )
    findings: tuple[str, ...] = Field(description="What was seen in the labels and predictions.")
    advice: tuple[str, ...] = Field(description="What to do, in words.")

    @property
    def used(self) -> CandidateVerdict:
        """The candidate to use."""
        return next(each for each in self.candidates if each.name == self.use)


def keep(verdict: Verdict, folder: Path) -> None:
    """Write a verdict beside the weights that it chose, in the folder of the trained model."""
    (folder / _FILE).write_text(verdict.model_dump_json(indent=2) + "\n")


def kept(folder: Path) -> Verdict | None:
    """Return the verdict in the folder of a trained model; None if this version can read none."""
    try:
        return Verdict.model_validate_json((folder / _FILE).read_bytes())
    except (OSError, ValueError):  # the weights are good without it
        return None
