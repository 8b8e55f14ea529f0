"""The loop: reports, refusals, parts, selection, checkpoints and lengths."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.config.stages import AdaptationConfig, PretrainConfig
from models.training.lengths import Lengths, sections_per_epoch
from models.training.loop import KeepBest, NonFiniteLoss, Run, Task, seeded_weights, train, update
from models.training.progress import Picture, Progress, Stage, Stop
from models.training.resume import Checkpoints, State
from tests.models.domains import QUIET, equal_weights


class Cancelled(Exception):
    """What a caller raises to end a run for good."""


def counting(
    steps: int,
    step: Callable[[int], Mapping[str, float]] = lambda _: {"loss": 1.0},
    *,
    stage: Stage = "style",
    keep: Callable[[nn.Module], KeepBest] | None = None,
) -> tuple[Task[int], nn.Linear]:
    """A task whose one weight says which steps were run: it adds each step's number."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)

    def add(number: int, batch: int) -> Mapping[str, float]:
        assert batch == number
        with torch.no_grad():
            module.weight += number
        return step(number)

    optimisers = {"only": torch.optim.SGD(module.parameters(), lr=1)}
    kept = None if keep is None else keep(module)
    return Task(stage, "this", steps, {"only": module}, optimisers, lambda n: n, add, kept), module


def test_each_step_is_reported() -> None:
    reports: list[Progress] = []
    train(counting(3)[0], Run(reports.append))
    assert [(p.stage, p.step, p.total) for p in reports] == [("style", n, 3) for n in (1, 2, 3)]
    assert [p.values["loss"] for p in reports] == [1.0] * 3
    assert [set(p.values) for p in reports] == [{"loss"}, {"loss"}, {"loss", "wait_share"}]
    assert 0 <= reports[-1].values["wait_share"] <= 1


def test_the_callback_stops_the_loop(tmp_path: Path) -> None:
    def stop_at_two(progress: Progress) -> None:
        if progress.step == 2:
            raise Cancelled

    task, module = counting(5)
    with pytest.raises(Cancelled):
        train(task, Run(stop_at_two, Checkpoints(tmp_path)))
    assert module.weight == 1 + 2
    assert not list(tmp_path.iterdir())


def stopping_at(step: int, checkpoints: Checkpoints) -> Run:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise Stop

    return Run(report, checkpoints)


def test_a_stop_saves_and_the_next_attempt_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(counting(5)[0], stopping_at(2, Checkpoints(tmp_path, attempt="1")))
    reports: list[Progress] = []
    task, module = counting(5)
    train(task, Run(reports.append, Checkpoints(tmp_path, attempt="2")))
    assert [p.step for p in reports] == [3, 4, 5]
    assert module.weight == 15
    assert sorted(p.name for p in tmp_path.iterdir()) == ["style-1.pt", "style-2.pt"]

    again, module = counting(5)
    train(again, Run(reports.append, Checkpoints(tmp_path, attempt="3")))
    assert reports[3:] == [reports[2]]  # it was finished: its end is reported, nothing trained
    assert module.weight == 15


def test_a_state_of_another_run_or_stage_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(counting(5)[0], stopping_at(2, Checkpoints(tmp_path)))
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load("style", "this") is not None
    assert checkpoints.load("style", "other") is None
    assert checkpoints.load("adapt", "this") is None


def test_a_damaged_checkpoint_is_refused_unless_another_attempts_is_whole(tmp_path: Path) -> None:
    train(counting(3)[0], Run(QUIET.report, Checkpoints(tmp_path, attempt="1")))
    whole = (tmp_path / "style-1.pt").read_bytes()
    (tmp_path / "style-2.pt").write_bytes(whole[: len(whole) // 2])
    state = Checkpoints(tmp_path).load("style", "this")
    assert state is not None
    assert state.step == 3
    (tmp_path / "style-1.pt").unlink()
    with pytest.raises(ValueError, match=r"damaged.*style-2\.pt"):
        Checkpoints(tmp_path).load("style", "this")


def test_checkpoints_are_saved_in_time_and_at_the_end(tmp_path: Path) -> None:
    saved: list[int] = []

    class Spy(Checkpoints):
        def save(self, stage: Stage, state: State) -> None:
            super().save(stage, state)
            saved.append(state.step)

    train(counting(4)[0], Run(QUIET.report, Spy(tmp_path / "1", every_seconds=0)))
    train(counting(4)[0], Run(QUIET.report, Spy(tmp_path / "2", every_seconds=1000)))
    assert saved == [1, 2, 3, 4, 4]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_before_any_weight_moves(value: float) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimiser = torch.optim.SGD([weight], lr=1)
    losses = iter([[0.0, 0.0], [0.0, value]])

    def step(_: int) -> dict[str, float]:
        terms = [weight.sum() * 0 + term for term in next(losses)]
        return {"loss": sum(update(terms, optimiser))}

    with pytest.raises(NonFiniteLoss, match=f"pretrain, step 2: .*{value}"):
        train(counting(5, step, stage="pretrain")[0], QUIET)
    assert torch.equal(weight, torch.ones(3))


def test_parts_of_a_loss_give_the_gradient_of_the_whole() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimiser = torch.optim.SGD([weight], lr=0.5)
    values = update((weight[i] * (i + 1) for i in range(2)), optimiser)
    assert values == [1.0, 2.0]
    assert weight.tolist() == [0.5, 0.0]


def kept(
    scores: list[float | None], interval: int, steps: int, by: str | None = "dice/mean"
) -> tuple[float, list[Progress]]:
    """Which step's weights are left after ``steps`` steps with the given scores."""
    remaining, reports = iter(scores), []

    def score() -> dict[str, float]:
        value = next(remaining)
        return {} if value is None else {"dice/mean": value, "source_dice/mean": 1 - value}

    def keep(module: nn.Module) -> KeepBest:
        return KeepBest(module, score, interval, by)

    task, module = counting(steps, lambda _: {}, stage="pretrain", keep=keep)
    train(task, Run(reports.append))
    total = module.weight.item()
    return next(n for n in range(steps + 1) if n * (n + 1) / 2 == total), reports


@pytest.mark.parametrize(
    ("by", "step"), [("dice/mean", 4), ("source_dice/mean", 2), (None, 7)], ids=str
)
def test_the_best_validated_weights_are_kept(by: str | None, step: int) -> None:
    last, reports = kept([0.2, 0.7, 0.7, 0.5], interval=2, steps=7, by=by)
    assert last == step
    scores = {p.step: p.values["dice/mean"] for p in reports if "dice/mean" in p.values}
    assert scores == {2: 0.2, 4: 0.7, 6: 0.7, 7: 0.5}
    best = reports[-1].best
    assert best is not None
    assert best["dice/mean"] == scores[step]
    assert best["selected_step"] == step


def test_other_rules_keep_weights_beside_the_best(tmp_path: Path) -> None:
    """A stop in between loses none of them, and they change nothing of the training."""

    def task(*scores: float) -> tuple[Task[int], KeepBest]:
        remaining = iter(scores)
        kept: list[KeepBest] = []

        def keep(module: nn.Module) -> KeepBest:
            rules = {
                "last": lambda step, _: step or None,
                "lowest": lambda _, scores: -scores["dice/mean"] if scores else None,
                "never": lambda _step, _scores: None,
            }
            score = lambda: {"dice/mean": next(remaining)}  # noqa: E731
            kept.append(KeepBest(module, score, 1).beside(rules))  # type: ignore[arg-type]
            return kept[0]

        return counting(4, keep=keep)[0], kept[0]

    def steps(keep: KeepBest) -> dict[str, tuple[int, float]]:
        return {name: (o.step, float(o.weights["weight"])) for name, o in keep.others.items()}

    whole, of_whole = task(0.5, 0.2, 0.9, 0.3)
    train(whole, Run(lambda _: None))
    assert steps(of_whole) == {"last": (4, 10), "lowest": (2, 3)}
    assert of_whole.best is not None
    assert of_whole.best.step == 3

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise Stop

    states = Checkpoints(tmp_path)
    first, _ = task(0.5, 0.2, 0.9)
    with pytest.raises(Stop):
        train(first, Run(stop, states))
    second, of_second = task(0.3)
    train(second, Run(lambda _: None, states))
    assert steps(of_second) == steps(of_whole)


def test_pictures_come_with_the_first_step_and_eight_more() -> None:
    reports: list[Progress] = []
    picture = Picture(np.zeros((2, 2), np.float32))
    task, _ = counting(80, lambda _: {})
    train(replace(task, picture=lambda: picture), Run(reports.append))
    assert [p.step for p in reports if p.picture is picture] == [1, *range(10, 81, 10)]


@pytest.mark.parametrize(("start", "step"), [(0.6, 0), (0.4, 1)])
def test_the_weights_a_stage_starts_from_may_be_kept(start: float, step: int) -> None:
    remaining, reports = iter([0.5, 0.3]), []

    def keep(module: nn.Module) -> KeepBest:
        return KeepBest(
            module,
            lambda: {"dice/mean": next(remaining)},
            1,
            score_start=lambda: {"dice/mean": start},
        )

    task, module = counting(2, keep=keep)
    train(task, Run(reports.append))
    assert module.weight == step
    assert [(p.step, p.values["dice/mean"]) for p in reports] == [(0, start), (1, 0.5), (2, 0.3)]
    assert reports[-1].best == {"dice/mean": max(start, 0.5), "selected_step": step}


def test_the_best_weights_survive_a_stop(tmp_path: Path) -> None:
    def task(*scores: float) -> tuple[Task[int], nn.Linear]:
        remaining = iter(scores)

        def keep(module: nn.Module) -> KeepBest:
            return KeepBest(module, lambda: {"dice/mean": next(remaining)}, 1)

        return counting(4, keep=keep)

    with pytest.raises(Stop):
        train(task(0.1, 0.9, 0.2)[0], stopping_at(3, Checkpoints(tmp_path)))
    resumed, module = task(0.3)
    train(resumed, Run(QUIET.report, Checkpoints(tmp_path)))
    assert module.weight == 1 + 2


def test_without_validation_the_last_weights_are_kept_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert kept([None, None], interval=2, steps=4)[0] == 4
    assert "which=last reason=no_validation_masks" in caplog.text


def test_seeded_weights_leave_the_global_stream_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    with seeded_weights(0):
        first = nn.Linear(3, 3)
    assert torch.equal(torch.rand(1), expected)
    with seeded_weights(0):
        assert equal_weights(first, nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("config", "num_processes", "expected"),
    [
        (PretrainConfig(epochs=10), 1, (30, 15)),
        (PretrainConfig(epochs=10), 3, (10, 5)),
        (PretrainConfig(steps=7, validate_every_steps=2), 1, (7, 2)),
        (PretrainConfig(validate_every_epochs=0.01), 1, (300, 1)),
    ],
)
def test_segmentation_lengths(
    config: PretrainConfig, num_processes: int, expected: tuple[int, int]
) -> None:
    length = Lengths.of(config, 5, num_processes=num_processes)
    assert (length.steps, length.interval) == expected
    assert {length.schedule.factor(step) for step in range(1, length.steps + 1)} == {1}


@pytest.mark.parametrize(
    ("steps", "expected"), [(5, [1, 1, 1, 2 / 3, 1 / 3]), (4, [1, 1, 2 / 3, 1 / 3]), (1, [1])]
)
def test_a_rate_that_decays_is_whole_in_the_first_half(steps: int, expected: list[float]) -> None:
    config = PretrainConfig(steps=steps, learning_rate_decay="linear")
    schedule = Lengths.of(config, 3).schedule
    factors = [schedule.factor(step) for step in range(1, steps + 1)]
    assert (schedule.steps, factors) == (steps, pytest.approx(expected))


@pytest.mark.parametrize(("by", "expected"), [("source", 4), ("target", 6), ("max", 6)])
def test_epochs_of_adaptation_pass_over_the_domain_asked_for(by: str, expected: int) -> None:
    assert sections_per_epoch(AdaptationConfig(epoch_by=by), 4, 6) == expected
