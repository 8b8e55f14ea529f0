"""The benchmark's parts, small; that a process measures itself, and what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from app.cli.measure.training import tables
from models.speed import measure, reference
from models.speed.figures import Figures, Growth, StageResult, StyleResult, Timing
from models.speed.measure import (
    CASES,
    matrix_gflops,
    measure_stage,
    measure_style,
    stage_config,
)
from models.training.device import cpu_has_bf16

pytestmark = pytest.mark.training

REFERENCE = """
import torch
class CUTModel:
    def __init__(self, opt):
        assert (opt.ngf, opt.input_nc, opt.batch_size, opt.nce_idt) == (8, 1, 1, True)
        print("noise that is no figure")
        self.steps = 0
    def data_dependent_initialize(self, data):
        assert data["A"].shape == data["B"].shape == (1, 1, 32, 32)
    def set_input(self, data): pass
    def optimize_parameters(self): self.steps += 1
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What stands for the reference: its package's name, and the methods that a step calls."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("import torchvision\n")
    (tmp_path / "models" / "cut_model.py").write_text(REFERENCE)
    return tmp_path


@pytest.mark.processes
@pytest.mark.slow
def test_ours_and_the_reference_take_turns(checkout: Path) -> None:
    results = measure_style("32x8", 2, 50.0, checkout)
    assert [result.precision for result in results] == ["float32", "bf16"][: 1 + cpu_has_bf16()]
    for result in results:
        assert 0 < result.step.least <= result.step.median <= result.step.most
        assert result.step.peak_bytes > 50e6
        assert result.reference is not None
        assert result.speedup == pytest.approx(result.reference.median / result.step.median)
        assert result.memory_ratio == result.step.peak_bytes / result.reference.peak_bytes
        assert result.gflop >= result.gflop_done > 0
        assert result.fraction_of_peak == pytest.approx(result.gflop / result.step.median / 50)


@pytest.mark.processes
def test_the_reference_process_says_what_stands_in(checkout: Path) -> None:
    script = [sys.executable, reference.__file__, str(checkout), "32", "8"]
    heard = subprocess.run(script, input="\n", check=True, capture_output=True, text=True)
    ready, seconds, peak = map(json.loads, heard.stdout.splitlines())
    assert ready in ({"stood_in": ["torchvision"]}, {"stood_in": []})
    assert seconds > 0
    assert peak > 50e6


@pytest.mark.processes
@pytest.mark.parametrize("case", ["pretrain-8", "adapt-8"])
def test_a_stage_waits_and_translates_nothing(case: str) -> None:
    result = measure_stage(case, 3)
    assert result.case == case
    assert 0 < result.step.least <= result.step.median
    assert 0 <= result.wait_share <= 1
    assert result.generator_passes == 0


def test_the_file_is_what_the_command_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = Timing(median=1.5, least=1.0, most=2.0, peak_bytes=10**9)
    style = StyleResult(
        case="128x32",
        precision="float32",
        step=timing,
        gflop=9.0,
        gflop_done=4.0,
        fraction_of_peak=0.6,
        fraction_done=0.3,
        reference=timing,
        speedup=1.0,
        memory_ratio=1.0,
    )
    monkeypatch.setattr(measure, "measure_style", lambda *_: [style])
    monkeypatch.setattr(
        measure,
        "measure_stage",
        lambda case: StageResult(
            case=case, step=timing, first_seconds=1.6, wait_share=0.1, generator_passes=0
        ),
    )
    figures = measure.measure(["128x32", "adapt-8", "adapt-400"], 1, None)
    growth = Growth(seconds=1.0, first_seconds=1.0, peak_bytes=1.0)
    assert figures.large_to_small == {"adapt": growth}
    out = tmp_path / "figures.json"
    out.write_text(figures.model_dump_json())
    style_table, stage_table = tables(Figures.model_validate_json(out.read_bytes()))
    assert (style_table.row_count, stage_table.row_count) == (1, 2)


def test_matrix_products_are_counted() -> None:
    assert matrix_gflops(torch.float32, 64) > 0


def test_stages_have_the_length_asked_for() -> None:
    config = stage_config(7)
    assert (config.pretrain.steps, config.adaptation.steps) == (7, 7)
    assert len(CASES) == len(set(CASES))
