"""A batch divided between two processes, or into parts one after the other, is the same batch.

Rounding differs, for sums are taken in another order. Measured over 8 steps in float32: losses of
pre-training and adaptation agree to 3e-7, weights to 1e-6. CUT's, Y-Net's, Paul et al.'s and the
mean teacher's losses agree to 1e-6 for three or four steps; then, on one processor or another, they
part, for the biases before an instance norm have no gradient but rounding's, and others little
more, which Adam scales up to full steps. In float64, where it does not, CUT's and the mean
teacher's agree to 1e-14 all along.

Batch norm is the known exception. It normalises what goes through the network together, here a
part of the batch, so its curve is another one; its stored statistics are averaged.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pytest
import torch
from torch import Tensor

from models.training.progress import Progress
from tests.models.stage_process import Case, as_json, train_case
from tests.processes import DEADLINE_SECONDS

pytestmark = pytest.mark.processes

GROUP, INSTANCE, BATCH = ({"norm": norm} for norm in ("group", "instance", "batch"))
CASES = [
    Case("style", "style", {"steps": 3}, {}),
    Case("style64", "style", {}, {}, double=True),
    Case("pretrain", "pretrain", {}, INSTANCE),
    Case("dice", "pretrain", {"dice_weight": 5.0, "learning_rate_decay": "linear"}, INSTANCE),
    Case("adapt", "adapt", {"student_view": "both"}, GROUP),
    Case("y-net", "adapt", {"steps": 3}, GROUP, method="y-net"),
    Case("paul", "adapt", {"steps": 4}, GROUP, method="paul"),
    Case("rounds", "adapt", {"steps": 3}, GROUP, method="rounds"),
    Case("ema", "adapt", {"pseudo_labeler": "ema", "ema_decay": 0.5}, GROUP, double=True),
]
EXCEPTION = Case("norm", "adapt", {"pseudo_labeler": "ema", "norm_statistics": "both"}, BATCH)
NAN = Case("nan", "pretrain", {}, {}, nan=True)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def with_batch(case: Case, **changes: int) -> Case:
    return replace(case, changes={**case.changes, **changes})


def torchrun(folder: Path, cases: Sequence[Case], *arguments: str) -> tuple[int, str]:
    """Train cases in two processes, with warnings as errors: the exit code, and what was said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.models.stage_process", str(folder), as_json(list(cases)), *arguments]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    ended = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )
    return ended.returncode, ended.stderr


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes left what they trained with batches of 2 each."""
    folder = tmp_path_factory.mktemp("together")
    halved = [with_batch(case, batch_size=2) for case in (*CASES, EXCEPTION)]
    code, said = torchrun(folder, [*halved, NAN], "1")
    assert code == 0, said
    return folder


@dataclass(frozen=True)
class Trained:
    """What a run reported and the weights it left."""

    curve: Sequence[Mapping[str, float]]
    weights: Mapping[str, Tensor]

    @classmethod
    def here(cls, case: Case, folder: Path) -> Self:
        """Train in this process."""
        reports: list[Progress] = []
        trained = train_case(case, folder, reports.append)
        return cls([progress.values for progress in reports], trained.state_dict())

    @classmethod
    def found(cls, case: Case, folder: Path, process: int = 0) -> Self:
        """Read what a process left."""
        curve = json.loads((folder / f"{case.name}.json").read_text())
        weights = torch.load(folder / f"{case.name}-{process}.pt", weights_only=True)
        return cls(curve, weights)

    def difference(self, other: Self) -> tuple[float, float]:
        """The largest of the losses of all steps, relative, and of the weights."""
        steps = list(zip(self.curve, other.curve, strict=True))
        losses = [
            abs(one[name] - two[name]) / (two[name] or 1.0)  # no whole tile in a batch: zero
            for one, two in steps
            for name in one
            if "loss" in name
        ]
        assert len(losses) >= len(steps)
        weights = [float((w - other.weights[n]).abs().max()) for n, w in self.weights.items()]
        return max(losses), max(weights)


def assert_close(one: Trained, other: Trained, case: Case) -> None:
    losses, weights = one.difference(other)
    assert losses < (1e-12 if case.double else 1e-5)
    # CUT's biases that have no gradient but rounding's differ by a step of Adam, 2e-4, each time.
    assert weights < (1e-7 if case.double else 2e-3 if case.stage == "style" else 1e-4)


@each_case
def test_two_processes_are_one_with_the_doubled_batch(
    case: Case, together: Path, tmp_path: Path
) -> None:
    whole = Trained.here(with_batch(case, batch_size=4), tmp_path)
    assert_close(Trained.found(case, together), whole, case)
    half = Trained.here(with_batch(case, batch_size=2), tmp_path)
    assert half.difference(whole)[0] > 1e-2  # the comparison can fail


@each_case
def test_a_batch_in_parts_is_the_whole_batch(case: Case, tmp_path: Path) -> None:
    whole = Trained.here(with_batch(case, batch_size=4), tmp_path)
    for accumulate in (2, 4):
        parts = with_batch(case, batch_size=4, accumulate=accumulate)
        assert_close(Trained.here(parts, tmp_path), whole, case)


@pytest.mark.parametrize("case", [*CASES, EXCEPTION], ids=lambda case: case.name)
def test_all_processes_end_with_equal_weights(case: Case, together: Path) -> None:
    first, second = (Trained.found(case, together, process).weights for process in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_batch_norm_is_the_exception(together: Path, tmp_path: Path) -> None:
    whole = Trained.here(with_batch(EXCEPTION, batch_size=4), tmp_path)
    halves = Trained.found(EXCEPTION, together)
    assert 1e-3 < halves.difference(whole)[0] < 0.2
    # Behind the first convolution the mean of the halves' means still is the mean of the whole.
    first = "stem.1.running_mean"
    torch.testing.assert_close(halves.weights[first], whole.weights[first], rtol=0, atol=1e-4)
    for name, value in whole.weights.items():
        if "running" in name:
            torch.testing.assert_close(halves.weights[name], value, rtol=0, atol=0.05)


def test_all_processes_refuse_what_one_finds(together: Path) -> None:
    """One NaN pixel in the crop of one process: both end, in words, at the same step."""
    first, second = ((together / f"nan-{process}.txt").read_text() for process in range(2))
    assert first == second
    assert re.match("stage pretrain, step 1: .*nan", first)


@pytest.mark.slow
def test_processes_killed_and_begun_again_end_as_if_undisturbed(
    together: Path, tmp_path: Path
) -> None:
    case = with_batch(EXCEPTION, batch_size=2)
    code, said = torchrun(tmp_path, [case], "1", "4")
    assert code != 0
    assert "SIGKILL" in said
    code, said = torchrun(tmp_path, [case], "2")
    assert code == 0, said
    for process in range(2):
        resumed = Trained.found(case, tmp_path, process)
        expected = Trained.found(EXCEPTION, together, process)
        assert len(resumed.curve) == 5  # steps 4 to 8: the fourth was not saved
        assert all(torch.equal(w, expected.weights[name]) for name, w in resumed.weights.items())
