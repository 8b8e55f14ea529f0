"""The loop: reports, refusals, selection, random streams and lengths."""

import pytest
import torch
from torch import nn

from models.config import (
    PretrainConfig,
)
from models.progress import Progress
from models.segmentation import lengths
from models.training import KeepBest, NonFiniteLoss, random_stream, seeded_weights, train, update
from tests.models.domains import equal_weights, ignore


class Stop(Exception):
    """What a caller raises to end a run."""


def test_each_step_is_reported() -> None:
    reports: list[Progress] = []
    train("style", 3, lambda: {"loss": 1.0}, report=reports.append)
    assert reports == [Progress("style", n, 3, {"loss": 1.0}) for n in (1, 2, 3)]


def test_the_callback_stops_the_loop() -> None:
    steps = []

    def stop_at_two(progress: Progress) -> None:
        if progress.step == 2:
            raise Stop

    with pytest.raises(Stop):
        train("adapt", 5, lambda: steps.append(1) or {}, report=stop_at_two)
    assert len(steps) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_before_any_weight_moves(value: float) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimiser = torch.optim.SGD([weight], lr=1)
    losses = iter([0.0, value])

    def step() -> dict[str, float]:
        return {"loss": update(weight.sum() * 0 + next(losses), optimiser)}

    with pytest.raises(NonFiniteLoss, match=f"stage pretrain, step 2: the loss is {value}"):
        train("pretrain", 5, step, report=ignore)
    assert torch.equal(weight, torch.ones(3))


def kept(scores: list[float | None], interval: int, steps: int) -> tuple[float, list[Progress]]:
    """The weight after ``steps`` steps that each add one, chosen by the given scores."""
    module, remaining, reports = nn.Linear(1, 1, bias=False), iter(scores), []
    nn.init.zeros_(module.weight)

    def step() -> dict[str, float]:
        with torch.no_grad():
            module.weight += 1
        return {}

    def score() -> dict[str, float]:
        value = next(remaining)
        return {} if value is None else {"dice/mean": value}

    keep = KeepBest(module, score, interval)
    train("pretrain", steps, step, report=reports.append, keep=keep)
    return module.weight.item(), reports


def test_the_best_validated_weights_are_kept() -> None:
    weight, reports = kept([0.2, 0.7, 0.7, 0.5], interval=2, steps=7)
    assert weight == 4
    assert {p.step: p.values["dice/mean"] for p in reports if p.values} == {
        2: 0.2,
        4: 0.7,
        6: 0.7,
        7: 0.5,
    }


def test_without_validation_the_last_weights_are_kept_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert kept([None, None], interval=2, steps=4)[0] == 4
    assert "which=last reason=no_validation_masks" in caplog.text


def test_streams_depend_on_seed_and_stage() -> None:
    draws = {
        (seed, stage): float(random_stream(seed, stage).random())
        for seed in (0, 1)
        for stage in ("style", "adapt")
    }
    assert len(set(draws.values())) == 4
    assert draws[0, "adapt"] == float(random_stream(0, "adapt").random())


def test_seeded_weights_leave_the_global_stream_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    with seeded_weights(0):
        first = nn.Linear(3, 3)
    assert torch.equal(torch.rand(1), expected)
    with seeded_weights(0):
        assert equal_weights(first, nn.Linear(3, 3))


def test_segmentation_lengths() -> None:
    assert lengths(PretrainConfig(epochs=10), 5) == (30, 15)
    assert lengths(PretrainConfig(steps=7, validate_every_steps=2), 5) == (7, 2)
    assert lengths(PretrainConfig(validate_every_epochs=0.01), 5) == (300, 1)
