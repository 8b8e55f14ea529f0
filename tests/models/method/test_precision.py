"""bfloat16 changes what convolutions compute in; not what is stored and, by much, the losses."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from models.training.progress import Progress
from models.training.resume import Checkpoints
from tests.models.domains import NEEDS_BF16
from tests.models.stage_process import STAGES, Case, TrainedStage, train_case

pytestmark = pytest.mark.training

Run = tuple[list[Progress], dict[str, Tensor], set[torch.dtype]]


@contextmanager
def computed_in() -> Iterator[set[torch.dtype]]:
    """The types of what convolutions put out in training."""
    seen: set[torch.dtype] = set()

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.training:
            seen.add(output.dtype)

    handle = register_module_forward_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def trained(stage: TrainedStage, precision: str, folder: Path) -> Run:
    changes = {"precision": precision, "batch_size": 2, "norm_statistics": "both"}
    reports: list[Progress] = []
    with computed_in() as seen:
        network = train_case(Case(precision, stage, changes, {}), folder, reports.append)
    return reports, network.state_dict(), seen


@NEEDS_BF16
@pytest.mark.parametrize("stage", STAGES)
def test_bfloat16_trains_like_float32(stage: TrainedStage, tmp_path: Path) -> None:
    exact, _, exact_in = trained(stage, "float32", tmp_path)
    rounded, weights, rounded_in = trained(stage, "bf16", tmp_path)
    assert (exact_in, rounded_in) == ({torch.float32}, {torch.bfloat16})
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights.values())
    assert all(bool(value.isfinite().all()) for value in weights.values())
    losses = {name: value for name, value in exact[0].values.items() if "loss" in name}
    assert losses
    for name, value in losses.items():
        assert rounded[0].values[name] == pytest.approx(value, rel=0.05)
        assert rounded[0].values[name] != value


@NEEDS_BF16
@pytest.mark.parametrize("stage", STAGES)
def test_the_state_of_a_bfloat16_run_is_float32(stage: TrainedStage, tmp_path: Path) -> None:
    case = Case("bf16", stage, {"precision": "bf16", "steps": 2, "validate_every_steps": 1}, {})
    train_case(case, tmp_path, lambda _: None, Checkpoints(tmp_path))
    saved = torch.load(tmp_path / f"{stage}-0.pt", weights_only=True)
    tensors = list(tensors_in(saved))
    assert len(tensors) > 60
    assert {tensor.dtype for tensor in tensors} <= {torch.float32, torch.int64}


def tensors_in(content: Any) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from tensors_in(value)
