"""Charts show the report's numbers, alike each time, and need nothing else to be seen."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from models.table1.results import BenchmarkReport
from tests.worker.report.reports import CHARTS, HOSTILE, full, hostile, made, row
from worker.report.charts import draw, write_charts
from worker.report.content import ChartName

pytestmark = pytest.mark.heavy


def texts(name: ChartName, report: BenchmarkReport) -> list[str]:
    """Read every text of a chart."""
    root = ElementTree.fromstring(draw(name, report))
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_charts_are_the_same_each_time_and_stand_alone(tmp_path: Path) -> None:
    write_charts(full(), tmp_path)
    first = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == set(CHARTS)
    write_charts(full(), tmp_path)
    assert {path.stem: path.read_bytes() for path in tmp_path.iterdir()} == first
    for drawn in first.values():
        root = ElementTree.fromstring(drawn)
        title = root.find("{*}title")
        assert title is not None
        assert "here → there" in (title.text or "")
        assert root.find(".//{*}date") is None
        assert b"fill: #ffffff" in drawn


def test_charts_hold_rows_classes_and_numbers() -> None:
    rows = {"Source-only", "CUT", "StyleFilter", "Target-only"}
    assert rows | {"30.0", "40.0", "60.0", "90.0"} <= set(texts("mean", full()))
    assert rows | {"mito", "nucleus"} <= set(texts("classes", full()))
    assert {"CUT", "StyleFilter", "step of adapt"} <= set(texts("curves", full()))
    assert rows | {"1 h 6 min"} <= set(texts("time", full()))
    assert "mean DICE, %" in texts("styles", full())


def test_a_score_that_is_missing_is_a_dash() -> None:
    report = made(row("source-only", mito=(None, None)), row("cut", mito=(0.25, 0.75)))
    assert texts("mean", report).count(" –") == 1
    assert "50.0" in texts("mean", report)


def test_all_panels_are_drawn_beyond_a_line_of_them() -> None:
    names = [f"class{n}" for n in range(6)]
    report = made(row("cut", **dict.fromkeys(names, (0.25, 0.75))), class_names=tuple(names))
    assert set(names) <= set(texts("classes", report))


@pytest.mark.parametrize("name", CHARTS)
def test_names_in_charts_are_text(name: ChartName) -> None:
    tags = {element.tag for element in ElementTree.fromstring(draw(name, hostile())).iter()}
    assert not any("script" in tag for tag in tags)
    assert HOSTILE.split("|", maxsplit=1)[0] not in draw(name, hostile())
