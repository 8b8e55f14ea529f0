"""The one training loop, and what every stage's step needs."""

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from models.progress import Progress, Report, Stage

log = logging.getLogger(__name__)

StepFn = Callable[[], Mapping[str, float]]
"""One update of all weights a stage trains; returns the losses by name."""


class NonFiniteLoss(ValueError):
    """A loss became NaN or infinite; the weights are those before the step."""


class KeepBest:
    """Scores ``module`` every ``interval`` steps and keeps its weights where the score is best.

    ``score`` returns ``dice/...`` values; without ``dice/mean`` (nothing to validate on) the last
    weights stay.
    """

    def __init__(
        self, module: nn.Module, score: Callable[[], Mapping[str, float]], interval: int
    ) -> None:
        self._module, self._score, self._interval = module, score, interval
        self._best: float | None = None
        self._best_step = 0
        self._weights: dict[str, Tensor] = {}

    def after_step(self, step: int, total: int) -> Mapping[str, float]:
        """Validation values of this step; empty between validations."""
        if step % self._interval and step != total:
            return {}
        values = self._score()
        mean = values.get("dice/mean")
        if mean is not None and (self._best is None or mean > self._best):
            self._best, self._best_step = mean, step
            self._weights = copy.deepcopy(self._module.state_dict())
        return values

    def restore(self, stage: Stage) -> None:
        """Load the best weights; say so where there was nothing to choose by."""
        if self._best is None:
            log.warning("weights_kept stage=%s which=last reason=no_validation_masks", stage)
            return
        self._module.load_state_dict(self._weights)
        log.info("weights_kept stage=%s step=%d dice=%.4f", stage, self._best_step, self._best)


def train(
    stage: Stage, steps: int, step_fn: StepFn, *, report: Report, keep: KeepBest | None = None
) -> None:
    """Run ``step_fn`` for ``steps`` steps, validating with ``keep`` and reporting each step."""
    for step in range(1, steps + 1):
        try:
            values = dict(step_fn())
        except NonFiniteLoss as error:
            raise NonFiniteLoss(f"stage {stage}, step {step}: {error}") from error
        if keep is not None:
            values.update(keep.after_step(step, steps))
        report(Progress(stage, step, steps, values))
    if keep is not None:
        keep.restore(stage)


def update(loss: Tensor, *optimisers: torch.optim.Optimizer) -> float:
    """Backward pass and one step of each optimiser; a non-finite loss is refused before both."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise NonFiniteLoss(f"the loss is {value}; no weight was changed")
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    for optimiser in optimisers:
        optimiser.step()
    return value


def random_stream(seed: int, stage: Stage) -> np.random.Generator:
    """A stage's own random numbers, so that no stage's length changes another's draws."""
    return np.random.default_rng([seed, get_args(Stage).index(stage)])


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Modules built inside get reproducible weights; torch's global stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def steps_of(steps: int | None, epochs: float, steps_per_epoch: int) -> int:
    """A length in steps where one is given, else ``epochs`` of ``steps_per_epoch``; at least 1."""
    return steps or max(1, round(epochs * steps_per_epoch))
