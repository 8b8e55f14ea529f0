"""Compare the verdicts of labels with the truth of test masks; free of torch."""

from collections.abc import Collection, Sequence

import numpy as np

from models.choice.judging import LEAST_GAIN
from models.choice.verdict import CandidateVerdict
from models.table1.results import JudgedCell, VerdictCheck

TRUE_DIFFERENCE = 0.01
"""The least true difference of mean DICE that a verdict should tell: one point."""


def check(cells: Sequence[JudgedCell], excluded: Collection[str]) -> VerdictCheck | None:
    """Count the comparisons with source-only that verdicts told rightly, wrongly or not.

    A comparison counts if its candidate differs from source-only by more than 0.01 in mean DICE on
    the test masks. None if no verdict has two candidates with a DICE.
    """
    pairs = [
        (candidate, gain)
        for cell in cells
        for candidate in cell.verdict.candidates[1:]
        if (gain := _gain(candidate, cell.verdict.candidates[0], excluded)) is not None
    ]
    if not pairs:
        return None
    large = [(candidate, gain) for candidate, gain in pairs if abs(gain) > TRUE_DIFFERENCE]
    told = [np.sign(_told(candidate)) * np.sign(gain) for candidate, gain in large]
    regrets = [regret for cell in cells if (regret := _regret(cell, excluded)) is not None]
    return VerdictCheck(
        rightly=sum(sign > 0 for sign in told),
        wrongly=sum(sign < 0 for sign in told),
        left_open=sum(sign == 0 for sign in told),
        small=len(pairs) - len(large),
        mean_regret=float(np.mean(regrets)),
        most_regret=max(regrets),
    )


def mean_dice(candidate: CandidateVerdict, excluded: Collection[str]) -> float | None:
    """Return the mean DICE over the classes that the table keeps and the test masks have."""
    known = [
        each.dice
        for name, each in candidate.classes.items()
        if name not in excluded and each.dice is not None
    ]
    return sum(known) / len(known) if known else None


def best(cell: JudgedCell, excluded: Collection[str]) -> CandidateVerdict | None:
    """Return the candidate with the highest mean DICE on the test masks; None without masks."""
    scored = [c for c in cell.verdict.candidates if mean_dice(c, excluded) is not None]
    return max(scored, key=lambda c: mean_dice(c, excluded) or 0.0, default=None)


def chosen(cell: JudgedCell) -> CandidateVerdict:
    """Return the candidate that the verdict chose."""
    return next(c for c in cell.verdict.candidates if c.name == cell.verdict.use)


def _gain(
    candidate: CandidateVerdict, base: CandidateVerdict, excluded: Collection[str]
) -> float | None:
    score, of_base = mean_dice(candidate, excluded), mean_dice(base, excluded)
    return None if score is None or of_base is None else score - of_base


def _told(candidate: CandidateVerdict) -> float:
    """Return the gain that the labels tell; 0 if they leave the question open."""
    gain = candidate.gain
    open_ = gain is None or not gain.told or abs(gain.value) < LEAST_GAIN
    return 0.0 if gain is None or open_ else gain.value


def _regret(cell: JudgedCell, excluded: Collection[str]) -> float | None:
    """Return by how much the best candidate is above the chosen one."""
    highest = best(cell, excluded)
    return None if highest is None else _gain(highest, chosen(cell), excluded)
