"""Sentences say the right numbers, and only those that can be told."""

import pytest

from models.table1.methods import RowName
from models.table1.results import BenchmarkReport, Difference
from tests.worker.report.reports import full, made, row
from worker.report.sentences import headline, of_row


def gain(name: RowName, mean: float, low: float, high: float) -> Difference:
    return Difference(
        row=name, than="source-only", mean=mean, low=low, high=high, standard_error=0.01
    )


def compared() -> BenchmarkReport:
    return made(
        row("source-only", mito=(0.5, 0.5)),
        row("cut", mito=(0.51, 0.51)),
        row("y-net", mito=(0.4, 0.4)),
        row("stylefilter", mito=(0.7, 0.7)),
        row("target-only", mito=(0.9, 0.9)),
        differences=(
            gain("cut", 0.01, -0.02, 0.04),
            gain("y-net", -0.1, -0.15, -0.05),
            gain("stylefilter", 0.2, 0.15, 0.25),
            gain("target-only", 0.4, 0.3, 0.5),
        ),
    )


def told(report: BenchmarkReport) -> dict[RowName, str]:
    return {row.row: of_row(report, row) for row in report.rows}


def test_headline_holds_gains_intervals_and_the_gap_that_was_closed() -> None:
    said = headline(full()) or ""
    assert "StyleFilter reaches 60.0%" in said
    assert "+30.0 points against Source-only" in said
    assert "+20.0 points (95% interval +5.0 to +30.0) against CUT" in said
    assert "50% of" in said
    assert "90.0%" in said


def test_means_over_other_folds_are_not_compared() -> None:
    report = made(
        row("source-only", mito=(0.1, 0.1)),
        row("cut", mito=(0.8, 0.2)),
        row("stylefilter", mito=(0.9,)),
        row("target-only", mito=(0.95, 0.5)),
    )
    said = headline(report) or ""
    assert "90.0%" in said
    assert "one fold of 2" in said
    assert not any(title in said for title in ("Source-only", "CUT", "Target-only"))


def test_who_knows_the_test_images_labels_does_not_win() -> None:
    known = made(row("filter-at-test", mito=(0.9,)), row("cut", mito=(0.3,)), folds=1)
    assert (headline(known) or "").startswith("CUT reaches 30.0%")
    assert headline(made()) is None


def test_a_row_says_gain_and_share_of_the_gap() -> None:
    said = told(compared())
    assert "70.0%" in said["stylefilter"]
    assert "20.0 points above Source-only (95% interval +15.0 to +25.0)" in said["stylefilter"]
    assert "closes 50% of the gap" in said["stylefilter"]
    assert "10.0 points below Source-only" in said["y-net"]
    assert not any("gap" in said[name] for name in ("source-only", "cut", "target-only"))
    assert "+1.0 points (95% interval −2.0 to +4.0), may be chance" in said["cut"]
    assert "points" not in said["source-only"]


def test_a_row_without_what_to_compare_with() -> None:
    alone = made(row("cut", mito=(0.5, 0.5)))
    assert "Source-only" not in told(alone)["cut"]
    apart = made(row("source-only", mito=(0.5, 0.5)), row("cut", mito=(0.6,)))
    assert "no interval" in told(apart)["cut"]
    nowhere = made(row("cut", mito=(None, None)))
    assert "%" not in told(nowhere)["cut"]


@pytest.mark.parametrize(
    ("name", "annotation"),
    [
        ("source-only", "no annotation"),
        ("stylefilter", "40 labelled tiles"),
        ("target-only", "12.5 masks"),
    ],
)
def test_a_row_says_what_it_used(name: RowName, annotation: str) -> None:
    said = told(compared())[name]
    assert f"{annotation} of the target" in said
    assert "1 h 6 min" in said
    assert ("validation masks" in said) == (name != "source-only")
