"""A run killed at any moment and begun again ends as if nothing had happened, bit for bit.

What is killed are processes of their own (``stage_process.context``).
"""

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from models.training.progress import Progress
from models.training.resume import Checkpoints, State
from tests.models.stage_process import Case, context, train_case

pytestmark = pytest.mark.processes

STEPS = 10
KILL_SEEDS = int(os.environ.get("STYLEFILTER_KILL_SEEDS", "12"))
AUGMENTATION = {"zoom": 0.3, "strong": {"probability": 0.5}}
OPTIONS = {"dice_weight": 0.5, "learning_rate_decay": "linear", "augmentation": AUGMENTATION}

CASES = {
    "style": Case("style", "style", {"steps": STEPS}, {}),
    "pretrain": Case("pretrain", "pretrain", {"steps": STEPS, **OPTIONS}, {}),
    "adapt": Case("adapt", "adapt", {"steps": STEPS, "batch_size": 2, **OPTIONS}, {}),
    "y-net": Case("y-net", "adapt", {"steps": STEPS}, {}, method="y-net"),
    "paul": Case("paul", "adapt", {"steps": STEPS}, {}, method="paul"),
    "rounds": Case(
        "rounds",
        "adapt",
        {"steps": STEPS, "relabel_every_steps": 4, "statistics": "target", "area_power": 1.0},
        {},
        method="rounds",
    ),
    "ema": Case("ema", "adapt", {"steps": STEPS, "pseudo_labeler": "ema", "ema_decay": 0.5}, {}),
}


def attempt(
    case: Case,
    folder: Path,
    number: int,
    reports: Connection,
    die: str | None = None,
    is_awaited: bool = False,
) -> None:
    """One attempt at a case, in a process of its own; does not end where a kill ``is_awaited``."""
    torch.set_num_threads(1)
    if die is not None:
        die_while_saving(die)
    checkpoints = Checkpoints(folder / "checkpoints", attempt=str(number), every_seconds=0)

    def report(progress: Progress) -> None:
        reports.send((progress.step, dict(progress.values)))
        if is_awaited and progress.step == STEPS:
            time.sleep(60)

    trained = train_case(case, folder, report, checkpoints)
    torch.save(trained.state_dict(), folder / "weights.pt")


def die_while_saving(when: str) -> None:
    """Have this process kill itself at a point of its third save."""
    saves = 0
    sync, replace = os.fsync, os.replace

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def syncing(file: int) -> None:
        nonlocal saves
        saves += 1
        sync(file)
        if saves == 3 and when == "half":
            os.ftruncate(file, os.fstat(file).st_size // 2)
            die()

    def replacing(source: Path, target: Path) -> None:
        if saves == 3 and when == "written":
            die()
        replace(source, target)
        if saves == 3 and when == "renamed":
            die()

    os.fsync, os.replace = syncing, replacing


@dataclass
class Attempts:
    """The attempts at a case: how many there were, and the reports of each step."""

    case: Case
    folder: Path
    number: int = 0
    reports: dict[int, list[Mapping[str, float]]] = field(default_factory=dict)

    def start(self, *, kill_at: int | None = None, delay: float = 0, die: str | None = None) -> int:
        """Begin again, kill ``delay`` seconds after step ``kill_at`` or a later one; exit code."""
        self.number += 1
        receiver, sender = context.Pipe(duplex=False)
        arguments = (self.case, self.folder, self.number, sender, die, kill_at is not None)
        process = context.Process(target=attempt, args=arguments)
        process.start()
        sender.close()
        while (report := received(receiver)) is not None:
            step, values = report
            self.reports.setdefault(step, []).append(values)
            if kill_at is not None and step >= kill_at:
                time.sleep(delay)
                process.kill()
                kill_at = None
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def partial(self) -> list[Path]:
        return list((self.folder / "checkpoints").glob(".*"))

    def weights(self) -> Mapping[str, Any]:
        return torch.load(self.folder / "weights.pt", weights_only=True)


def received(reports: Connection) -> tuple[int, Mapping[str, float]] | None:
    """The next report, or None where the process has ended."""
    try:
        report: tuple[int, Mapping[str, float]] = reports.recv()
    except EOFError:
        return None
    return report


@dataclass(frozen=True)
class Undisturbed:
    """What a run that nobody killed left."""

    weights: Mapping[str, Any]
    reports: Mapping[int, Mapping[str, float]]
    state: Mapping[str, Any]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Undisturbed]:
    """Train a case in this process, once."""
    known: dict[str, Undisturbed] = {}

    def train(name: str) -> Undisturbed:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            checkpoints, reports = Checkpoints(folder, every_seconds=1000), {}

            def report(progress: Progress) -> None:
                reports[progress.step] = dict(progress.values)

            weights = train_case(CASES[name], folder, report, checkpoints).state_dict()
            known[name] = Undisturbed(weights, reports, furthest(folder))
        return known[name]

    return train


def furthest(folder: Path) -> Mapping[str, Any]:
    """The content of the state with the most steps."""
    states = [torch.load(path, weights_only=True) for path in folder.glob("*.pt")]
    return max(states, key=lambda state: state["step"])


def assert_equal(one: Any, other: Any, where: str) -> int:
    """Compare nested tensors and numbers bit for bit; how many tensors there were."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
        return 1
    if isinstance(one, Mapping):
        assert one.keys() == other.keys(), where
        return sum(assert_equal(one[key], other[key], f"{where}.{key}") for key in one)
    if isinstance(one, list | tuple):
        assert len(one) == len(other), where
        pairs = zip(one, other, strict=True)
        return sum(assert_equal(*each, f"{where}[{n}]") for n, each in enumerate(pairs))
    assert one == other, where
    return 0


def timeless(values: Mapping[str, float]) -> Mapping[str, float]:
    return {name: value for name, value in values.items() if name != "wait_share"}


def assert_as_undisturbed(attempts: Attempts, expected: Undisturbed) -> None:
    """Weights, optimisers' state, best weights and every report, also of steps done again."""
    state, other = furthest(attempts.folder / "checkpoints"), expected.state
    assert state["step"] == STEPS
    assert assert_equal(attempts.weights(), expected.weights, "weights") > 10
    for part in ("identity", "modules", "optimisers", "best"):
        assert_equal(state[part], other[part], part)
    assert assert_equal(state["optimisers"], other["optimisers"], "optimisers") > 30
    assert attempts.reports.keys() == set(range(1, STEPS + 1))
    for step, reports in attempts.reports.items():
        for values in reports:
            assert timeless(values) == timeless(expected.reports[step]), step


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, KILL_SEEDS))]
)
@pytest.mark.parametrize("name", CASES)
def test_killed_at_random_and_begun_again(
    name: str, seed: int, tmp_path: Path, undisturbed: Callable[[str], Undisturbed]
) -> None:
    expected = undisturbed(name)
    rng = random.Random(seed)
    attempts = Attempts(CASES[name], tmp_path)
    for step in sorted(rng.sample(range(1, STEPS - 1), 3)):
        delay = rng.uniform(0, 0.03)
        assert attempts.start(kill_at=step, delay=delay) == -signal.SIGKILL
    assert attempts.start() == 0
    assert_as_undisturbed(attempts, expected)


@pytest.mark.parametrize("when", ["half", "written", "renamed"])
def test_killed_while_saving(
    when: str, tmp_path: Path, undisturbed: Callable[[str], Undisturbed]
) -> None:
    expected = undisturbed("pretrain")
    attempts = Attempts(CASES["pretrain"], tmp_path)
    for _ in range(3):
        assert attempts.start(die=when) == -signal.SIGKILL
    assert len(attempts.partial()) == (0 if when == "renamed" else 3)
    assert attempts.start() == 0
    assert_as_undisturbed(attempts, expected)


def saved(folder: Path) -> Path:
    """A state of one step."""
    weights = {"only": {"weight": torch.arange(1000.0)}}
    state = State("this", 1, {"loss": 1.0}, weights, {}, None)
    Checkpoints(folder).save("style", state)
    return folder / "style-0.pt"


def test_what_killed_saves_left_is_swept_when_none_can_be_writing_it(tmp_path: Path) -> None:
    content = saved(tmp_path).read_bytes()
    old, fresh = tmp_path / ".old.partial", tmp_path / ".fresh.partial"
    for path in (old, fresh):
        path.write_bytes(content[: len(content) // 2])
    hour_ago = time.time() - 3600
    os.utime(old, (hour_ago, hour_ago))
    os.utime(tmp_path / "style-0.pt", (hour_ago, hour_ago))
    state = Checkpoints(tmp_path, attempt="1").load("style", "this")
    assert state is not None
    assert state.step == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fresh.partial", "style-0.pt"]


def damages(content: bytes) -> dict[str, bytes]:
    rng = random.Random(0)
    cut = {f"cut to {part}/16": content[: len(content) * part // 16] for part in range(16)}
    zeroed = {
        f"zeros after {part}/16": content[: len(content) * part // 16].ljust(len(content), b"\0")
        for part in range(15)
    }
    garbage = {f"{size} random bytes": rng.randbytes(size) for size in range(1, 2000, 50)}
    return cut | zeroed | garbage


def test_a_damaged_state_is_refused_in_words(tmp_path: Path) -> None:
    path = saved(tmp_path)
    for what, content in damages(path.read_bytes()).items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match="checkpoint is damaged"):
            pytest.fail(f"{what}: loaded {Checkpoints(tmp_path).load('style', 'this')}")


def test_an_altered_byte_is_never_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content, rng = path.read_bytes(), random.Random(0)
    original, refused = Checkpoints(tmp_path).load("style", "this"), 0
    assert original is not None
    for _ in range(500):
        altered = bytearray(content)
        altered[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(altered)
        try:
            state = Checkpoints(tmp_path).load("style", "this")
        except ValueError:
            refused += 1
        else:
            assert state is not None
            assert_equal(vars(state), vars(original), "state")
    assert refused > 300  # the others were in what the archive pads and repeats
