"""``stylefilter table``, and the whole way from two folders to one report of two benchmarks."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.synthetic.domain import CLASSES, write_domain
from models.config.presets import preset
from models.table1.results import BenchmarkReport

pytestmark = pytest.mark.processes


def test_folders_without_cells_are_refused(tmp_path: Path) -> None:
    ended = CliRunner().invoke(cli, ["table", str(tmp_path), "--out", str(tmp_path / "out")])
    assert ended.exit_code == 1
    assert "no cells" in " ".join(ended.output.split())


def test_a_damaged_cell_is_named(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "mine.json").write_text("{}")
    ended = CliRunner().invoke(cli, ["table", str(tmp_path), "--out", str(tmp_path / "out")])
    assert ended.exit_code == 1
    assert "mine.json" in "".join(ended.output.split())


@pytest.mark.slow
def test_one_table_of_two_folds_that_were_measured_apart(tmp_path: Path) -> None:
    for name in ("source", "target"):
        write_domain(tmp_path / name, name, num_sections=12, size_px=96, seed=1)  # type: ignore[arg-type]
        meta = {"name": name, "classes": list(CLASSES), "pixel_size_nm": 4}
        (tmp_path / name / "meta.json").write_text(json.dumps(meta))
    sections = ("segmenter", "pretrain", "adaptation")
    tiny = preset("smoke").model_dump(mode="json", include=set(sections))
    tiny["adaptation"]["select_on"] = "last"
    tiny["choice"] = {"max_trained": 1, "target_statistics": False}
    (tmp_path / "tiny.json").write_text(json.dumps(tiny))
    measure = ["benchmark", "--preset=best", f"--config={tmp_path / 'tiny.json'}", "--tile-px=24"]
    measure += [f"--{name}={tmp_path / name}" for name in ("source", "target")]
    measure += ["--folds=2", "--seeds=0", "--seeds=1", "--row=source-only", "--row=chosen"]
    outs = [tmp_path / f"out{fold}" for fold in (1, 2)]
    for fold, out in enumerate(outs, start=1):
        ended = CliRunner().invoke(cli, [*measure, f"--fold={fold}", f"--out={out}"])
        assert ended.exit_code == 0, ended.output
        kept = sorted(path.stem for path in (out / "cells").iterdir())
        assert kept == sorted(
            f"fold-{fold}-seed-{seed}-{what}"
            for seed in (0, 1)
            for what in ("pretrain", "source-only-24px", "chosen-24px")
        )
    both = tmp_path / "both"
    ended = CliRunner().invoke(cli, ["table", *map(str, outs), f"--out={both}"])
    assert ended.exit_code == 0, ended.output
    tables = [
        BenchmarkReport.model_validate_json((out / "report.json").read_bytes())
        for out in (*outs, both)
    ]
    assert [(table.folds, table.seeds) for table in tables] == [
        (1, (0, 1)),
        (1, (0, 1)),
        (2, (0, 1)),
    ]
    whole = tables[-1]
    assert [row.row for row in whole.rows] == ["source-only", "chosen"]
    for number, row in enumerate(whole.rows):
        of_parts = [table.rows[number].dice["mean"].per_fold for table in tables[:2]]
        assert row.dice["mean"].per_fold == (*of_parts[0], *of_parts[1])
    assert [(each.fold, each.seed) for each in whole.verdicts] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for each in whole.verdicts:
        assert all(c.mean_dice is not None for c in each.verdict.candidates)
