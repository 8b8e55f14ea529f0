"""Locks of GPUs, between processes; no GPU is needed for them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import wait_for
from worker.gpu import held, visible

pytestmark = pytest.mark.processes

HOLD = """
import sys
from pathlib import Path
from worker.gpu import held
with held([sys.argv[1]], Path(sys.argv[2])) as locks:
    print(locks is not None, flush=True)
    sys.stdin.read()
"""


def test_a_gpu_has_one_holder_and_others_are_free(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, "0", str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with held(["0"], tmp_path) as taken, held(["1"], tmp_path) as free:
            assert taken is None
            assert free is not None
        with held(["1", "0"], tmp_path) as both:
            assert both is None
        with held(["1"], tmp_path) as again:
            assert again is not None  # what was locked before the refusal was let go
        other.kill()
    wait_for(lambda: _free("0", tmp_path), "the lock of a killed process")


def _free(gpu: str, folder: Path) -> bool:
    with held([gpu], folder) as locks:
        return locks is not None


def test_a_trainer_keeps_the_lock_of_a_worker_that_died(tmp_path: Path) -> None:
    with held(["0"], tmp_path) as locks:
        assert locks is not None
        trainer = subprocess.Popen(["sleep", "60"], pass_fds=locks)
    assert not _free("0", tmp_path)
    trainer.kill()
    trainer.wait()
    assert _free("0", tmp_path)


def test_without_gpus_nothing_is_locked(tmp_path: Path) -> None:
    with held([], tmp_path) as locks:
        assert locks == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "number", "names"),
    [
        (None, 2, ["0", "2"]),
        (None, 9, ["0", "2", "10"]),
        ("3", 1, ["3"]),
        ("3, GPU-8f1e", 2, ["3", "GPU-8f1e"]),
        ("3,4", 1, ["3"]),
        ("", 1, []),
    ],
)
def test_the_gpus_of_a_worker_are_those_it_may_see(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str | None,
    number: int,
    names: list[str],
) -> None:
    for name in ("nvidia10", "nvidia2", "nvidia0", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    if variable is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible(number, tmp_path) == names
