"""The example runs, and the pages show its code."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
CODE = (ROOT / "examples" / "adapt_a_folder.py").read_text()
WAY = CODE.split("# %%")[-1].partition("\n")[2]
"""The cell that shows the whole way."""


@pytest.mark.training
def test_the_example_runs_with_the_smallest_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert CODE.count('preset("best")') == 1
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    smallest = 'preset("smoke").changed({"method": "chosen", "choice": {"max_trained": 1}})'
    exec(compile(CODE.replace('preset("best")', smallest), "example", "exec"), names)
    mask = np.asarray(names["prediction"].mask)  # type: ignore[attr-defined]
    assert (mask.shape, mask.dtype) == ((256, 256), np.uint8)
    assert (tmp_path / "adapted" / "verdict.json").is_file()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["pretrain", "1/6"], ["pretrain", "2/6"]]
    assert "verdict" in [line.split()[0] for line in lines[:-1]]


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_a_page_shows_the_examples_code(page: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    shown = [block for block in blocks if "models.notebook" in block]
    assert shown
    assert all(block.strip() == WAY.strip() for block in shown)
