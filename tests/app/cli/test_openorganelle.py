"""`stylefilter datasets fetch openorganelle`, as it is typed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.folder_upload import described, inputs_of, request_of
from app.cli.main import cli
from tests.models.data.openorganelle.lookalike import CELL, write_demo

FETCH = ["datasets", "fetch", "openorganelle", "--cell", CELL]


@pytest.fixture
def at(tmp_path: Path) -> str:
    write_demo(tmp_path)
    return str(tmp_path)


def run(*words: str) -> tuple[int, str]:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(cli, [*FETCH, *words])
    return done.exit_code, done.output


def test_a_dry_run_tells_the_cost_and_writes_nothing(at: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = run("--at", at, "--to", str(out), "--dry-run")
    assert code == 0
    assert all(word in said for word in ("crop1", "crop4", "56", "crop10", "4 crops"))
    assert not out.exists()


def test_a_fetch_leaves_a_folder_that_can_be_registered(at: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = run("--at", at, "--to", str(out), "--crops", "1-2")
    assert code == 0
    assert f"datasets register {out}" in said
    request = request_of(described(out, inputs_of([out])), "meta.json")
    assert (request.name, request.pixel_size_nm) == (CELL, 4.0)
    assert sorted(request.groups or {}) == ["crop1", "crop2"]


def test_each_crop_that_cannot_be_read_is_named(at: str, tmp_path: Path) -> None:
    code, said = run("--at", at, "--to", str(tmp_path / "out"), "--crops", "1, 77-78")
    assert code == 1
    assert "crop77" in said
    assert "crop78" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--crops", "1,x"], "crops.1"),
        (["--crops", "one"], "crops.0"),
        (["--crops", "1-99999"], "1-99999"),
        (["--crops", "9-1"], "9-1"),
        (["--classes", "none.yaml"], "none.yaml"),
        (["--at", "ftp://example.org/x"], "ftp"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    code, output = run("--to", str(tmp_path / "out"), *words)
    assert code in (1, 2)
    assert said in output
    assert not (tmp_path / "out").exists()
