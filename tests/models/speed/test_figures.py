"""Figures of speed: summarised, written and read."""

from pathlib import Path

from models.speed.figures import Figures, Timing


def test_a_timing_has_the_median() -> None:
    timing = Timing.of([3.0, 1.0, 2.0], 7)
    assert timing == Timing(median=2.0, least=1.0, most=3.0, peak_bytes=7)


def test_the_published_figures_can_be_read() -> None:
    published = Path(__file__).parents[3] / "docs" / "results" / "training_speed.json"
    figures = Figures.model_validate_json(published.read_bytes())
    assert [result.case for result in figures.style][:1] == ["128x32"]
