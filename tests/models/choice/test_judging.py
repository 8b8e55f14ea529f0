"""The verdict: who wins, when nobody does, and what is said of labels that say little."""

from dataclasses import replace

import numpy as np
import pytest

from models.choice.judging import Candidate, Facts, judge
from models.choice.label_scores import Evidence
from models.choice.verdict import Rate, Verdict
from models.scores import Evaluation
from tests.models.choice.predictions import evidence
from tests.models.domains import A, P, U

LABELS = [P, A] * 50
FACTS = Facts(("organelle",))


def seen(error: float, labels: list[int] = LABELS, wrong: int = 0) -> Evidence:
    """Evidence with this mean error of its probabilities, and ``wrong`` missed tiles."""
    rng = np.random.default_rng(len(labels))
    errors = error + rng.uniform(-0.05, 0.05, len(labels))
    errors[: 2 * wrong : 2] = 1 - error
    peaks = [1 - e if label == P else e for e, label in zip(errors, labels, strict=True)]
    found = [0.3 * peak if peak > 0.5 else 0.0 for peak in peaks]
    return evidence(labels, peaks, shares=found)


def verdict(*others: Evidence, base: Evidence | None = None, facts: Facts = FACTS) -> Verdict:
    candidates = [Candidate("source-only", "Source-only", base or seen(0.3))]
    candidates += [Candidate(f"c{n}", f"Candidate {n}", e) for n, e in enumerate(others)]
    return judge(candidates, facts)


def test_wilson_intervals() -> None:
    # Newcombe 1998, table I: 81 of 263, and 0 of 20.
    rate = Rate.count(81, 263)
    assert (rate.low, rate.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    none = Rate.count(0, 20)
    assert (none.low, none.high) == pytest.approx((0, 0.1611), abs=1e-4)
    assert Rate.count(0, 0).model_dump() == {"wrong": 0, "of": 0, "low": 0.0, "high": 1.0}


def test_the_candidate_with_the_lowest_loss_is_used_if_it_beats_source_only() -> None:
    found = verdict(seen(0.2), seen(0.1), seen(0.4))
    assert (found.outcome, found.use) == ("better", "c1")
    gains = [candidate.gain for candidate in found.candidates]
    assert gains[0] is None
    assert [gain.told for gain in gains if gain is not None] == [True, True, True]
    assert gains[3] is not None
    assert gains[3].high < 0
    assert (found.num_tiles, found.num_sections) == (100, 100)
    assert "Candidate 1" in found.advice[0]


def test_a_worse_one_hands_out_source_only() -> None:
    found = verdict(seen(0.3, wrong=20))
    assert (found.outcome, found.use) == ("worse", "source-only")
    (organelle,) = found.candidates[1].classes.values()
    assert (organelle.misses.wrong, organelle.misses.of) == (20, 50)
    assert (organelle.claims.wrong, organelle.claims.of) == (0, 50)
    assert organelle.balanced_accuracy == pytest.approx(0.8)


def test_a_difference_that_may_be_chance_hands_out_source_only_and_asks_for_labels() -> None:
    base, noise = seen(0.3), np.random.default_rng(1).normal(0.01, 0.15, (100, 1))
    other = replace(base, peaks=(base.peaks + noise * (2 * base.labels - 1)).clip(0, 1))
    found = verdict(other, base=base)
    assert (found.outcome, found.use) == ("not_told", "source-only")
    assert found.candidates[1].gain is not None
    assert not found.candidates[1].gain.told
    assert verdict(base, base=base).outcome == "not_told"  # the same prediction


def test_a_prediction_that_is_only_a_little_surer_changes_nothing() -> None:
    base = seen(0.3)
    surer = replace(base, peaks=np.where(base.labels == P, base.peaks + 0.01, base.peaks - 0.01))
    found = verdict(surer, base=base)
    gain = found.candidates[1].gain
    assert gain is not None
    assert (gain.told, found.outcome, found.use) == (True, "not_told", "source-only")


def test_more_tiles_are_asked_for_as_the_interval_shrinks_with_their_root() -> None:
    base = seen(0.3, LABELS[:40])
    noise = np.random.default_rng(1).normal(0, 0.25, (40, 1))
    other = replace(base, peaks=(base.peaks + (0.1 + noise) * (2 * base.labels - 1)).clip(0, 1))
    found = verdict(other, base=base)
    gain = found.candidates[1].gain
    assert gain is not None
    assert not gain.told
    needed = 40 * ((gain.high - gain.low) / 2 / gain.value) ** 2 - 40
    assert 10 <= needed <= 500
    assert f"about {round(needed / 10) * 10} more tiles" in found.advice[1]
    assert "organelle" in found.advice[1]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([], "No tile"),
        ([U] * 30, "No tile"),
        ([P, A, P, A, P], "3 labelled tiles call organelle present and 2 absent"),
        ([A] * 40, "All 40"),
        ([P] * 40, "40 of 40"),
        ([P] * 38 + [A] * 2, "38 of 40"),
    ],
)
def test_labels_that_cannot_judge_are_named(labels: list[int], says: str) -> None:
    found = verdict(seen(0.1, labels), base=seen(0.4, labels))
    assert (found.outcome, found.use) == ("not_judged", "source-only")
    assert [says in words for words in found.findings] == [True]
    assert found.candidates[1].gain is None
    assert "organelle" in found.advice[1]


def test_a_class_is_told_apart_from_those_that_labels_cannot_judge() -> None:
    one, other = seen(0.1), seen(0.3)
    everywhere = np.full((100, 1), P)
    both = [
        replace(
            each,
            labels=np.hstack([everywhere, each.labels]),
            peaks=np.hstack([np.full((100, 1), 0.99), each.peaks]),
            shares=np.hstack([np.full((100, 1), 0.7), each.shares]),
        )
        for each in (other, one)
    ]
    found = verdict(both[1], base=both[0], facts=Facts(("cytosol", "organelle")))
    assert found.outcome == "better"
    assert [words.split()[0] for words in found.findings] == ["cytosol"]


def test_contradictions_and_equal_domains_are_said() -> None:
    found = verdict(seen(0.1), facts=replace(FACTS, contradictions=3))
    assert found.outcome == "better"
    assert found.findings[0].startswith("3 ")
    same = verdict(seen(0.1), facts=replace(FACTS, same_images=True))
    assert (same.outcome, same.use) == ("not_judged", "source-only")
    assert len(same.findings) == len(same.advice) == 1


def test_a_class_that_is_drawn_half_as_large_is_named() -> None:
    """Its presence is told as well as ever: the area of the source alone sees it."""
    whole = seen(0.1)
    half = replace(whole, shares=whole.shares / 2)
    expected = replace(FACTS, source_area=whole.area())
    assert verdict(whole, facts=expected).findings == ()
    small = verdict(half, facts=expected)
    assert "0.50 times" in small.findings[0]
    organelle = small.candidates[1].classes["organelle"]
    assert organelle.area == pytest.approx(0.5 * (organelle.source_area or 0))
    unknown = verdict(half, facts=replace(FACTS, source_area=np.array([np.nan])))
    assert unknown.findings == ()
    assert unknown.candidates[1].classes["organelle"].source_area is None


def test_scores_on_masks_are_shown_and_choose_nothing() -> None:
    masks = [np.array([[0, 9], [9, 0]]), np.array([[9, 0], [0, 9]])]
    names = ("background", "organelle")
    two = [replace(e, **{a: np.hstack([getattr(e, a)] * 2) for a in ("labels", "peaks", "shares")})
           for e in (seen(0.1), seen(0.3))]  # fmt: skip
    candidates = [
        Candidate(name, name, each, evaluation=Evaluation.of(names, confusion))
        for name, each, confusion in zip(("source-only", "other"), two, masks, strict=True)
    ]
    found = judge(candidates, Facts(names))
    assert found.use == "source-only"
    assert [candidate.mean_dice for candidate in found.candidates] == [0, 1]
    assert found.candidates[1].classes["organelle"].dice == 1


def test_a_candidate_that_was_trained_on_the_labels_is_said_to_be() -> None:
    trained = Candidate("c", "Adapted", seen(0.1), trained_on_labels=True)
    found = judge([Candidate("source-only", "Source-only", seen(0.3)), trained], FACTS)
    assert found.use == "c"
    assert "Adapted" in found.findings[0]


def test_a_verdict_is_read_back_from_json() -> None:
    found = verdict(seen(0.1), seen(0.3, wrong=3))
    assert Verdict.model_validate_json(found.model_dump_json()) == found
