"""The report as a folder."""

from pathlib import Path

import pytest

from models.data.splits import DatasetFolds, Folds, SectionLists
from models.table1.results import BenchmarkReport
from tests.worker.report.reports import CHARTS, full, made
from worker.report import html
from worker.report.files import write

pytestmark = pytest.mark.heavy


def folds() -> Folds:
    lists = SectionLists(train=("a",), val=("b",), test=("c",))
    one = DatasetFolds(dataset="here", digest="0" * 64, folds=(lists,))
    return Folds(source=one, target=one)


def test_files_are_written_all_at_once_and_only_over_a_report(tmp_path: Path) -> None:
    report = full()
    write(report, tmp_path / "made", figure=b"a picture", folds=folds())
    assert (tmp_path / "made" / "figure.png").read_bytes() == b"a picture"
    stored = (tmp_path / "made" / "folds.json").read_text()
    assert Folds.model_validate_json(stored) == folds()
    write(report, tmp_path / "made")
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file()}
    charts = {f"made/charts/{name}.svg" for name in CHARTS}
    assert names == charts | {"made/report.json", "made/report.md", "made/report.html"}
    stored = (tmp_path / "made" / "report.json").read_text()
    assert BenchmarkReport.model_validate_json(stored) == report
    assert "(figure.png)" not in (tmp_path / "made" / "report.md").read_text()

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="not a report"):
        write(report, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "mine"]


def test_a_failed_write_leaves_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(full(), tmp_path / "made")

    def broken(*_: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(html, "render", broken)
    with pytest.raises(OSError, match="disk full"):
        write(made(), tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    stored = (tmp_path / "made" / "report.json").read_text()
    assert BenchmarkReport.model_validate_json(stored) == full()
