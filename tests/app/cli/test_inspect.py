"""`stylefilter datasets report` and `compare`, against the running service."""

from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from tests.app.files import pixels, png, registered, upload

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def _run(api: httpx.Client, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["datasets", *words, "--url", str(api.base_url)])
    return result.exit_code, " ".join(result.output.split())


def _send(api: httpx.Client, *, invert: bool = False) -> str:
    """Register three sections, each a dark square on bright ground, with masks."""
    inside = np.zeros((96, 96), np.uint8)
    inside[30:60, 20:70] = 1
    noise = np.random.default_rng(0).integers(0, 9, (3, 96, 96), np.uint8)
    images = 200 - 150 * inside + noise
    files = {f"{n}.png": png(255 - image if invert else image) for n, image in enumerate(images)}
    masks = {f"{n}.png": png(inside) for n in range(3)}
    found: str = registered(upload(api, files, masks))["id"]
    return found


def test_the_report_and_its_contact_sheet(api: httpx.Client, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    code, said = _run(api, "report", _send(api), "--contact-sheet", str(sheet))
    assert code == 0, said
    assert "organelle" in said
    assert "3 sections, 3 with a mask" in said
    assert pixels(sheet.read_bytes()).shape[1] >= 600


def test_the_comparison_names_what_it_found(api: httpx.Client) -> None:
    code, said = _run(api, "compare", _send(api), _send(api, invert=True))
    assert code == 0, said
    assert "contrast is inverted" in said


def test_a_refusal_ends_the_command_with_its_reason(api: httpx.Client) -> None:
    gone = str(uuid4())
    code, said = _run(api, "report", gone)
    assert (code, gone in said.replace(" ", "")) == (1, True)
