"""`stylefilter labels import`, `export` and `derive`, against the running service."""

import json
import re
import shlex
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from tests.app.files import grey, mask, png, registered, tiff, upload

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

PAGE = Path(__file__).parents[3] / "docs" / "your_own_data.md"


@pytest.fixture
def dataset(api: httpx.Client) -> str:
    images = {f"s{n}.png": png(grey(n)) for n in range(3)}
    masks = {"s0.png": png(mask(organelle=10)), "s1.png": png(mask(organelle=0))}
    found: str = registered(upload(api, images, masks))["id"]
    return found


def run(api: httpx.Client, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["labels", *words, "--url", str(api.base_url)])
    return result.exit_code, " ".join(result.output.split())


def organelles(api: httpx.Client, dataset: str) -> list[str]:
    items = api.get(f"/datasets/{dataset}/labels").json()["items"]
    return [item["classes"]["organelle"] for item in items]


def newest(api: httpx.Client, dataset: str) -> dict:
    return api.get(f"/datasets/{dataset}/labels/history").json()["items"][0]


def test_a_table_is_imported_and_exported(api: httpx.Client, dataset: str, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("image;organelle\ns0.png;1\ns1.png;0\n")
    code, said = run(api, "import", dataset, str(table), "--by", "Ann", "--seconds", "30")
    assert code == 0, said
    assert "organelle" in said
    assert organelles(api, dataset) == ["present", "absent", "unknown"]
    change = newest(api, dataset)
    assert (change["kind"], change["by"], change["seconds"]) == ("csv", "Ann", 30)
    code, said = run(api, "export", dataset, str(tmp_path / "out" / "copy.csv"))
    assert code == 0, said
    copy = (tmp_path / "out" / "copy.csv").read_text(encoding="utf-8-sig")
    assert copy.splitlines() == ["section,background,organelle", "s0,,1", "s1,,0", "s2,,"]


def test_the_table_and_the_commands_of_the_document(
    api: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = PAGE.read_text()
    points, table = re.findall(r"^```csv\n(.*?)^```$", page, re.M | re.S)
    commands = re.findall(r"^stylefilter (labels .*)$", page, re.M)
    classes = ["cytosol", "mitochondrion", "nucleus"]
    images = {f"section_00{n}.tif": tiff(grey(n, 32, 32)) for n in (1, 2)}
    target = registered(upload(api, images, class_names=classes, tile_px=16))["id"]
    put = {"content-type": "text/csv"}
    sent = api.put(f"/datasets/{target}/labels", content=table.encode(), headers=put).json()
    assert sent["counts"]["mitochondrion"] == {"present": 1, "absent": 1, "unknown": 6}
    assert sent["counts"]["nucleus"] == {"present": 1, "absent": 1, "unknown": 6}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "points.csv").write_text(points)
    assert len(commands) == 4
    for command in commands:
        words = shlex.split(command.replace("$TARGET", target))
        result = CliRunner().invoke(cli, [*words, "--url", str(api.base_url)])
        assert result.exit_code == 0, result.output
    # Only the points changed something: the table of labels that was exported did not.
    last = newest(api, target)
    assert (last["version"], last["by"], last["changed_points"]) == (2, "Ann", 2)
    assert (tmp_path / "labels.csv").exists()
    written = (tmp_path / "points.csv").read_text("utf-8-sig")
    assert sorted(written.split()) == sorted(points.split())


def test_json_is_imported(api: httpx.Client, dataset: str, tmp_path: Path) -> None:
    file = tmp_path / "labels.JSON"
    entry = {"section": "s2", "classes": {"organelle": "absent"}}
    file.write_text(json.dumps({"labels": [entry]}))
    code, said = run(api, "import", dataset, str(file))
    assert code == 0, said
    assert organelles(api, dataset) == ["unknown", "unknown", "absent"]
    assert newest(api, dataset)["kind"] == "put"


def test_wrong_lines_are_told(api: httpx.Client, dataset: str, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("image,organelle\ns0,[maybe]\ns9,1\n")
    code, said = run(api, "import", dataset, str(table))
    assert code == 1
    for words in ("line 2", "[maybe]", "line 3", "s9"):
        assert words in said
    assert organelles(api, dataset) == ["unknown"] * 3


def test_labels_that_changed_meanwhile_are_not_overwritten(
    api: httpx.Client, dataset: str, tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("image,organelle\ns0,1\n")
    assert run(api, "import", dataset, str(table), "--if-version", "0")[0] == 0
    code, _ = run(api, "import", dataset, str(table), "--if-version", "0")
    assert code == 1
    assert run(api, "derive", dataset, "--if-version", "0")[0] == 1


def test_labels_are_derived(api: httpx.Client, dataset: str) -> None:
    code, said = run(api, "derive", dataset)
    assert code == 0, said
    assert organelles(api, dataset) == ["present", "absent", "unknown"]
    assert "background: " in said  # present in all images, which the service remarks
    assert run(api, "derive", dataset, "--min-pixels", "11")[0] == 0
    assert organelles(api, dataset) == ["absent", "absent", "unknown"]
    assert run(api, "derive", dataset, "--min-pixels", "organelle=10", "--by", "Bo")[0] == 0
    assert organelles(api, dataset) == ["present", "absent", "unknown"]
    assert newest(api, dataset)["by"] == "Bo"


@pytest.mark.parametrize(
    "options",
    [
        ["--min-pixels", "few"],
        ["--min-pixels", "0"],
        ["--min-pixels", "5", "--min-pixels", "organelle=10"],
        ["--min-pixels", "organelle="],
        ["--split", "all"],
        ["--seconds", "-1"],
        ["--by", "a" * 201],
    ],
)
def test_options_that_are_wrong(api: httpx.Client, dataset: str, options: list[str]) -> None:
    code, said = run(api, "derive", dataset, *options)
    assert code == 2, said
    assert options[0] in said


def test_what_is_not_there(api: httpx.Client, dataset: str, tmp_path: Path) -> None:
    gone = str(uuid4())
    code, said = run(api, "export", gone, str(tmp_path / "a.csv"))
    assert (code, gone in said.replace(" ", "")) == (1, True)
    assert list(tmp_path.glob("*.csv")) == []
    assert run(api, "import", dataset, str(tmp_path / "none.csv"))[0] == 2
    code, said = run(api, "export", dataset, str(tmp_path))
    assert code == 2
