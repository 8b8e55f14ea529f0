"""The one training loop, and what every stage's step needs."""

import copy
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.checkpoints import Best, Checkpoints, State
from models.config import Precision
from models.parallel import average_buffers, average_gradients, mean_values, rank
from models.progress import Progress, Report, Stage, Stop

log = logging.getLogger(__name__)

Batch = TypeVar("Batch")

_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


class NonFiniteLoss(ValueError):
    """A loss became NaN or infinite; the weights are those before the step."""


class KeepBest:
    """Scores ``module`` every ``interval`` steps and keeps its weights where ``by`` is highest.

    ``score`` returns named values. Where ``by`` is None, or never among them (nothing to validate
    on), the last weights stay.
    """

    def __init__(
        self,
        module: nn.Module,
        score: Callable[[], Mapping[str, float]],
        interval: int,
        by: str | None = "dice/mean",
    ) -> None:
        self._module, self._score, self._interval, self._by = module, score, interval, by
        self.best: Best | None = None

    def after_step(self, step: int, total: int) -> tuple[Mapping[str, float], bool]:
        """Validation values of this step, empty between validations; whether they are the best."""
        if step % self._interval and step != total:
            return {}, False
        values = self._score()
        score = None if self._by is None else values.get(self._by)
        if score is None:
            return values, step == total
        if self.best is not None and score <= self.best.score:
            return values, False
        self.best = Best(score, step, copy.deepcopy(self._module.state_dict()))
        return values, True

    def restore(self, stage: Stage) -> None:
        """Load the best weights; say so where there was nothing to choose by."""
        if self.best is None:
            reason = "as_asked" if self._by is None else "no_validation_masks"
            log.warning("weights_kept stage=%s which=last reason=%s", stage, reason)
            return
        self._module.load_state_dict(self.best.weights)
        log.info("weights_kept stage=%s step=%d dice=%.4f", stage, self.best.step, self.best.score)


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """What a stage trains and how.

    ``batch`` prepares the data of a step (from 1) and depends on nothing but that number, for it
    runs ahead in a thread. ``step`` updates all weights once and returns the losses by name.
    ``modules`` and ``optimisers`` are everything that a step changes.
    """

    stage: Stage
    steps: int
    modules: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    batch: Callable[[int], Batch]
    step: Callable[[int, Batch], Mapping[str, float]]
    keep: KeepBest | None = None

    @property
    def device(self) -> torch.device:
        return next(next(iter(self.modules.values())).parameters()).device

    def state(self, step: int) -> State:
        """What a checkpoint of this step holds; shares memory with the weights."""
        return State(
            step=step,
            modules={name: module.state_dict() for name, module in self.modules.items()},
            optimisers={name: o.state_dict() for name, o in self.optimisers.items()},
            best=None if self.keep is None else self.keep.best,
        )

    def resume(self, state: State) -> int:
        """Put everything back to a state; the number of its step."""
        for name, module in self.modules.items():
            module.load_state_dict(state.modules[name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(dict(state.optimisers[name]))
        if self.keep is not None:
            self.keep.best = state.best
        log.info("resumed stage=%s step=%d", self.stage, state.step)
        return state.step


@dataclass(frozen=True)
class Run:
    """What surrounds the stages of a run: who is told, and where their state is kept, if it is."""

    report: Report
    checkpoints: Checkpoints | None = None


def train(task: Task[Batch], run: Run) -> None:
    """Run a task's steps: from the last checkpoint, saving, validating and reporting on the way.

    The best weights are in place at the end. Of several processes the first reports and saves; all
    of them validate, so that they agree on which weights are the best.
    """
    saved = None if run.checkpoints is None else run.checkpoints.load(task.stage)
    done = 0 if saved is None else task.resume(saved)
    checkpoints = run.checkpoints if rank() == 0 else None
    waited, started = 0.0, monotonic()
    for step, batch, seconds in _prefetched(task.batch, done + 1, task.steps):
        waited += seconds
        values = _losses(task, step, batch)
        scores, kept = ({}, False) if task.keep is None else task.keep.after_step(step, task.steps)
        values.update(scores)
        if step == task.steps:
            values["wait_share"] = waited / max(monotonic() - started, 1e-9)
        try:
            if rank() == 0:
                run.report(Progress(task.stage, step, task.steps, values, kept))
        except Stop:
            if checkpoints is not None:
                checkpoints.save(task.stage, task.state(step))
            raise
        if checkpoints is not None and (checkpoints.due or step == task.steps):
            checkpoints.save(task.stage, task.state(step))
    if task.keep is not None:
        task.keep.restore(task.stage)


def _losses(task: Task[Batch], step: int, batch: Batch) -> dict[str, float]:
    try:
        values = task.step(step, batch)
    except NonFiniteLoss as error:
        raise NonFiniteLoss(f"stage {task.stage}, step {step}: {error}") from error
    average_buffers(task.modules.values())
    return mean_values(values, task.device)


def _prefetched(
    draw: Callable[[int], Batch], first: int, last: int
) -> Iterator[tuple[int, Batch, float]]:
    """Each step with its batch, prepared while the step before ran, and the seconds waited."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        upcoming = pool.submit(draw, first) if first <= last else None
        for step in range(first, last + 1):
            assert upcoming is not None
            before = monotonic()
            batch = upcoming.result()
            waited = monotonic() - before
            upcoming = pool.submit(draw, step + 1) if step < last else None
            yield step, batch, waited


def update(losses: Iterable[Tensor], *optimisers: torch.optim.Optimizer) -> list[float]:
    """One step of each optimiser along the summed gradient of ``losses``; the losses' values.

    The losses are the terms and parts of one batch's loss. Each is made, differentiated and freed
    before the next, so a batch in parts needs the memory of a part. A non-finite one is refused
    before any weight changes. With several processes the gradients are averaged first.
    """
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    values = []
    for loss in losses:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteLoss(f"the loss is {value}; no weight was changed")
        loss.backward()  # type: ignore[no-untyped-call]
        values.append(value)
    average_gradients(optimisers)
    for optimiser in optimisers:
        optimiser.step()
    return values


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Convolutions and matrix products inside run in ``precision``; norms and losses do not."""
    return torch.autocast(device.type, _DTYPES[precision], enabled=precision != "float32")


def to_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """An array as a tensor on ``device``; to a GPU through pinned memory, without waiting."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Modules built inside get reproducible weights; torch's global stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
