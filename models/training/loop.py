"""The one training loop, and functions that the steps of all stages share."""

import copy
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from models.config.stages import Precision
from models.data.domain import Domain
from models.training.parallel import (
    average_buffers,
    average_gradients,
    from_first,
    gradients,
    mean_values,
    rank,
)
from models.training.progress import Picture, Progress, Report, Stage, Stop, is_score
from models.training.resume import Best, Checkpoints, State

log = logging.getLogger(__name__)

Batch = TypeVar("Batch")

_PICTURES = 8  # pictures of a stage, besides the one after its first step


class NonFiniteLoss(ValueError):
    """A loss or its gradient became NaN or infinite; it changed no weight."""


class OutOfGpuMemory(RuntimeError):
    """A stage's batch does not fit the GPU."""

    def __init__(self, stage: Stage, error: torch.OutOfMemoryError) -> None:
        super().__init__(f"stage {stage}: {error}")
        self.stage = stage


Rule = Callable[[int, Mapping[str, float]], float | None]
"""A function that scores the weights of a step, by the step and by its scores; None: it cannot."""


class KeepBest:
    """The rule that keeps the weights of ``module`` with the highest score ``by``.

    ``score`` returns scores by name; it is called every ``interval`` steps. If ``by`` is None, or
    never among them (there is nothing to validate on), the last weights stay. ``score_start``
    scores the weights before the first step, if they may be kept too.
    """

    def __init__(
        self,
        module: nn.Module,
        score: Callable[[], Mapping[str, float]],
        interval: int,
        by: str | None = "dice/mean",
        score_start: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._module, self._score, self._interval, self._by = module, score, interval, by
        self._score_start = score_start
        self.best: Best | None = None
        self.others: dict[str, Best] = {}
        self._rules: Mapping[str, Rule] = {}

    def beside(self, rules: Mapping[str, Rule]) -> Self:
        """Keep the weights that other rules would keep, too, in ``others``."""
        self._rules = rules
        return self

    def before_steps(self) -> Mapping[str, float]:
        """Return the scores of the weights that training starts from; empty if they cannot stay."""
        return self._consider(0, self._score_start())

    def after_step(self, step: int, total: int) -> Mapping[str, float]:
        """Return the scores after a step; empty between validations."""
        if step % self._interval and step != total:
            return {}
        return self._consider(step, self._score())

    def _consider(self, step: int, own_scores: Mapping[str, float]) -> Mapping[str, float]:
        # Of the first process: rounding must not let two processes keep different weights.
        scores = from_first(own_scores)
        by = None if self._by is None else scores.get(self._by)
        if by is not None and (self.best is None or by > self.best.by):
            self.best = Best(by, step, scores, copy.deepcopy(self._module.state_dict()))
        if scores or step:  # else nothing was made ready to be scored
            self._consider_others(step, scores)
        return scores

    def _consider_others(self, step: int, scores: Mapping[str, float]) -> None:
        for name, rule in self._rules.items():
            by, known = from_first(rule(step, scores)), self.others.get(name)
            if by is not None and (known is None or by > known.by):
                self.others[name] = Best(by, step, scores, copy.deepcopy(self._module.state_dict()))

    def restore(self, stage: Stage) -> None:
        """Load the best weights, and log which ones they are."""
        if self.best is None:
            reason = "as_asked" if self._by is None else "no_validation_masks"
            log.warning("weights_kept stage=%s which=last reason=%s", stage, reason)
            return
        self._module.load_state_dict(self.best.weights)
        log.info("weights_kept stage=%s step=%d dice=%.4f", stage, self.best.step, self.best.by)


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """A stage of training, as the loop runs it.

    ``batch`` prepares the data of a step (from 1) and depends on nothing but that number, for it
    runs ahead in a thread. ``step`` updates all weights once and returns the losses by name.
    ``modules`` and ``optimisers`` are everything that a step changes. ``identity`` stands for all
    that decides the result (``identity.py``).
    """

    stage: Stage
    identity: str
    steps: int
    modules: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    batch: Callable[[int], Batch]
    step: Callable[[int, Batch], Mapping[str, float]]
    keep: KeepBest | None = None
    picture: Callable[[], Picture] | None = None
    """Shows the networks' output for an image now; it must leave no trace in them."""

    @property
    def device(self) -> torch.device:
        return next(next(iter(self.modules.values())).parameters()).device

    def state(self, step: int, values: Mapping[str, float]) -> State:
        """Return the state after a step, to be saved; it shares memory with the weights."""
        return State(
            identity=self.identity,
            step=step,
            values=values,
            modules={name: module.state_dict() for name, module in self.modules.items()},
            optimisers={name: o.state_dict() for name, o in self.optimisers.items()},
            best=None if self.keep is None else self.keep.best,
            others={} if self.keep is None else self.keep.others,
        )

    def resume(self, state: State) -> None:
        """Set networks, optimisers and the best weights back to a saved state."""
        for name, module in self.modules.items():
            module.load_state_dict(state.modules[name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(dict(state.optimisers[name]))
        if self.keep is not None:
            self.keep.best, self.keep.others = state.best, dict(state.others)
        log.info("resumed stage=%s step=%d", self.stage, state.step)

    def progress(self, step: int, values: Mapping[str, float]) -> Progress:
        """Return the report of a step; the last weights are the best if nothing chooses."""
        kept = self.keep.best if self.keep is not None else None
        best = None if kept is None else {**kept.scores, "selected_step": float(kept.step)}
        if best is None and step == self.steps:
            scores = {name: value for name, value in values.items() if is_score(name)}
            best = {**scores, "selected_step": float(step)}
        picture = None
        if self.picture is not None and (step == 1 or step % -(-self.steps // _PICTURES) == 0):
            picture = self.picture()
        return Progress(self.stage, step, self.steps, values, best, picture)


@dataclass(frozen=True)
class OtherRules:
    """Rules of choice to compare: the last weights, the best by labels, the best by target masks.

    ``by_labels`` scores a segmenter, in eval mode, by the labels of a target; None without labels.
    ``kept`` receives what each rule chose; it stays empty if an earlier result was taken over.
    """

    by_labels: Callable[[nn.Module, Domain], float | None]
    kept: dict[str, Best] = field(default_factory=dict)

    def of(self, segmenter: nn.Module, target: Domain) -> Mapping[str, Rule]:
        """Return the rules for an adaptation of ``segmenter`` to ``target``."""
        return {
            "last": lambda step, _: step or None,
            "labels": lambda _step, _scores: self.by_labels(segmenter, target),
            "oracle": lambda _step, scores: scores.get("dice/mean"),
        }


@dataclass(frozen=True)
class Run:
    """The surroundings of a run's stages.

    ``report`` is told of each step. ``checkpoints``, if given, save and find the state of a stage.
    ``finished`` returns the folder of the network that a stage of this identity left, or None.
    ``others``, if given, collects the weights that other rules would have chosen in an adaptation.
    """

    report: Report
    checkpoints: Checkpoints | None = None
    finished: Callable[[Stage, str], Path | None] = lambda _stage, _identity: None
    others: "OtherRules | None" = None


def train(task: Task[Batch], run: Run) -> None:
    """Run a task's steps from its last checkpoint, and save, validate and report on the way.

    The best weights are in place at the end. If several processes train, the first one reports and
    saves; all of them validate, so that they agree on which weights are the best.

    Raises:
        NonFiniteLoss: a loss or a gradient is not finite.
        OutOfGpuMemory: a batch does not fit the GPU.
        ValueError: the only checkpoint is damaged.
    """
    saved = run.checkpoints.load(task.stage, task.identity) if run.checkpoints else None
    done = 0 if saved is None else saved.step
    assert from_first(done) == done, "another attempt saved while these processes were loading"
    if saved is None and task.keep is not None:
        scores = task.keep.before_steps()
        if scores and rank() == 0:
            run.report(task.progress(0, scores))
    if saved is not None:
        task.resume(saved)
        if done == task.steps and rank() == 0:
            run.report(task.progress(done, saved.values))  # or nobody would hear of its end
    waited, started = 0.0, monotonic()
    for step, batch, seconds in _prefetched(task.batch, done + 1, task.steps):
        waited += seconds
        values = _values(task, step, batch)
        if step == task.steps:
            values["wait_share"] = waited / max(monotonic() - started, 1e-9)
        if rank() == 0:
            _after_step(task, step, values, run)
    if task.keep is not None:
        task.keep.restore(task.stage)


def _values(task: Task[Batch], step: int, batch: Batch) -> dict[str, float]:
    """Take a step, and return its losses and scores."""
    try:
        losses = task.step(step, batch)
    except NonFiniteLoss as error:
        raise NonFiniteLoss(f"stage {task.stage}, step {step}: {error}") from error
    except torch.OutOfMemoryError as error:
        raise OutOfGpuMemory(task.stage, error) from error
    # Each process has normalised its own part of the batch.
    average_buffers(task.modules.values())
    scores = {} if task.keep is None else task.keep.after_step(step, task.steps)
    return {**mean_values(losses, task.device), **scores}


def _after_step(task: Task[Batch], step: int, values: Mapping[str, float], run: Run) -> None:
    """Report a step, and save the state if it is due; before a stop it is saved too."""
    last = step == task.steps
    try:
        run.report(task.progress(step, values))
    except Stop:
        if run.checkpoints is not None:
            run.checkpoints.save(task.stage, task.state(step, values))
        raise
    if run.checkpoints is not None and (last or run.checkpoints.due):
        run.checkpoints.save(task.stage, task.state(step, values))


def _prefetched(
    draw: Callable[[int], Batch], first: int, last: int
) -> Iterator[tuple[int, Batch, float]]:
    """Yield each step, its batch, prepared while the step before ran, and the seconds waited."""
    # One thread and one batch ahead: more would only take memory.
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        upcoming = pool.submit(draw, first) if first <= last else None
        for step in range(first, last + 1):
            assert upcoming is not None
            before = monotonic()
            batch = upcoming.result()
            waited = monotonic() - before
            upcoming = pool.submit(draw, step + 1) if step < last else None
            yield step, batch, waited


def update(
    losses: Iterable[Tensor], *optimisers: torch.optim.Optimizer, clip_norm: float = math.inf
) -> list[float]:
    """Step each optimiser once along the summed gradient of ``losses``; return the losses' values.

    A gradient longer than ``clip_norm``, over all parameters, is shortened to it. The losses are
    the terms and parts of one batch's loss. Each is made, differentiated and freed before the next
    one, so that a batch in parts needs the memory of one part.

    Raises:
        NonFiniteLoss: a loss or the gradient is not finite. No weight changes, and all processes
            raise at once, so that none waits for ever for one that ended.
    """
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    terms = []
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
        terms.append(loss.detach())
    own = gradients(optimisers)
    average_gradients(own)
    *values, norm = torch.stack([*terms, get_total_norm(own)]).tolist()
    # The mean over the processes is not finite if one process's value is not.
    seen = mean_values({"loss": sum(values), "gradient": norm}, terms[0].device)
    for name in ("loss", "gradient"):
        if not math.isfinite(seen[name]):
            raise NonFiniteLoss(f"the {name} is {seen[name]}; it changed no weight")
    if norm > clip_norm:
        # Not clip_grad_norm_, which would compute the norm once more.
        torch._foreach_mul_(own, clip_norm / norm)
    for optimiser in optimisers:
        optimiser.step()
    return values


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters.

    It is set before each step and follows from the step alone, so a resumed run has the rate of an
    undisturbed one.
    """
    for group in optimiser.param_groups:
        group["lr"] = rate


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Run the convolutions and matrix products inside in ``precision``; norms stay in float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def to_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Return an array as a tensor on ``device``; a GPU gets it by pinned memory, unawaited."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Give modules built inside reproducible weights; torch's global stream stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
