"""Verdicts against test masks: what counts, and what was told."""

import pytest

from models.choice.verdict import CandidateVerdict, ClassVerdict, Interval, Rate, Verdict
from models.table1.results import JudgedCell
from models.table1.verdicts import best, check, chosen


def candidate(
    name: str, dice: float | None, low: float | None = None, **changes
) -> CandidateVerdict:
    """With this DICE of class a, and a gain whose interval begins at ``low`` and is 0.2 wide."""
    gain = None if low is None else Interval(value=low + 0.1, low=low, high=low + 0.2)
    rate = Rate.count(0, 10)
    fields = {"balanced_accuracy": None, "f1": None, "area": None, "source_area": None}
    classes = {
        each: ClassVerdict(misses=rate, claims=rate, dice=score, **fields)
        for each, score in {"a": dice, "b": None, "c": 0.5}.items()
    }
    fields = {"name": name, "title": name, "loss": 0.1, "gain": gain, "trained_on_labels": False}
    return CandidateVerdict(**fields | {"classes": classes, "mean_dice": dice} | changes)


def cell(use: str, *candidates: CandidateVerdict) -> JudgedCell:
    verdict = Verdict(
        outcome="better",
        use=use,
        num_tiles=10,
        num_sections=2,
        candidates=candidates,
        findings=(),
        advice=(),
    )
    return JudgedCell(row="chosen", fold=0, seed=0, tile_px=None, verdict=verdict)


def test_each_comparison_of_more_than_a_point_is_counted() -> None:
    one = cell(
        "right",
        candidate("source-only", 0.5),
        candidate("right", 0.6, 0.05),
        candidate("wrong", 0.6, -0.4),
        candidate("right too", 0.4, -0.4),
        candidate("left open", 0.4, -0.05),
        candidate("too little", 0.7, 0.001).model_copy(
            update={"gain": Interval(value=0.01, low=0.001, high=0.02)}
        ),
        candidate("not judged", 0.4),
        candidate("no difference", 0.505, 0.05),
    )
    found = check([one], excluded=("c",))
    assert found is not None
    assert (found.rightly, found.wrongly, found.left_open, found.small) == (2, 1, 3, 1)
    assert found.mean_regret == found.most_regret == pytest.approx(0.1)
    assert (chosen(one).name, best(one, ("c",)).name) == ("right", "too little")  # type: ignore[union-attr]


def test_classes_that_the_table_leaves_out_do_not_count() -> None:
    """With class c, whose DICE is always 0.5, the difference of a counts half."""
    one = cell("x", candidate("source-only", 0.5), candidate("x", 0.515, 0.05))
    other = cell("source-only", candidate("source-only", 0.5), candidate("x", 0.9, 0.05))
    with_c, without = check([one, other], ()), check([one, other], ("c",))
    assert with_c is not None
    assert without is not None
    assert (with_c.rightly, with_c.small) == (1, 1)
    assert (without.rightly, without.small) == (2, 0)
    assert (without.mean_regret, without.most_regret) == pytest.approx((0.2, 0.4))


def test_without_test_masks_nothing_is_checked() -> None:
    blind = cell("x", candidate("source-only", None), candidate("x", None, 0.05))
    assert check([blind], ("c",)) is None
    assert best(blind, ("c",)) is None
    assert check([], ()) is None
