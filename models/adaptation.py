"""What every adaptation of a segmenter shares: samples of both domains, the loop, the choice.

A method (``stylefilter.py``, ``ynet.py``, ``weak_labels.py``) adds what it learns from the target:
a ``Learner``. AdaBN, which learns nothing, is here.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor, nn, optim

from models.checkpoint import load_segmenter
from models.config import AdaptationConfig, StyleFilterConfig
from models.data.domain import Domain
from models.data.samples import SourceBatch, target_batch
from models.data.sampling import Sample, Sampler
from models.data.stylised import StylisedDomain
from models.networks.statistics import estimate_statistics, norms, statistics_kept
from models.networks.unet import UNet
from models.segmentation import as_input, own_samples, supervised_loss, validate
from models.training import identity, preview
from models.training.lengths import Lengths, sections_per_epoch
from models.training.loop import KeepBest, NonFiniteLoss, Run, Task, train
from models.training.parallel import num_processes, rank
from models.training.progress import Progress

Batch = TypeVar("Batch")

SELF_TRAINING = frozenset({"label_filter", "student_view", "pseudo_labeler", "ema_decay"})
"""Fields of the config that methods without pseudo-labels do not read."""

_CROPS = 64  # of the target, to estimate batch norm's statistics from


@dataclass(frozen=True)
class Pair:
    """The labelled source, and the target as the segmenter is to see it."""

    source: Domain
    target: StylisedDomain


@dataclass(frozen=True)
class Method(Generic[Batch]):
    """How a copy of a segmenter learns from the target.

    ``learner`` builds what trains the segmenter it is given; ``facts`` decide the result beside the
    data, the starting weights and ``config.adaptation``.
    """

    learner: "Callable[[UNet], Learner[Batch]]"
    facts: identity.MethodFacts


@dataclass(frozen=True)
class Learner(Generic[Batch]):
    """What a method adds to the common loop.

    ``batch`` makes a step's arrays of its samples of the source and of the target; it runs ahead in
    a thread. ``step`` updates all weights once and returns the losses by name. ``modules`` and
    ``optimisers`` are everything that a step changes, the segmenter among them.
    """

    batch: Callable[[Sequence[Sample], Sequence[Sample]], Batch]
    step: Callable[[Batch], Mapping[str, float]]
    optimisers: Mapping[str, optim.Optimizer]
    modules: Mapping[str, nn.Module] = field(default_factory=dict)


def adapt_by(
    method: Method[Batch], source_only: UNet, pair: Pair, config: StyleFilterConfig, run: Run
) -> UNet:
    """Train a copy of ``source_only``; ``adaptation.select_on`` says which weights are kept."""
    this = identity.of_adaptation(source_only, pair.source, pair.target, config, method.facts)
    if finished := run.finished("adapt", this):
        return load_segmenter(finished, next(source_only.parameters()).device)[0]
    segmenter = copy.deepcopy(source_only)
    train(_Adaptation(segmenter, pair, config).task(method.learner(segmenter), this), run)
    return segmenter.eval()


def adapt_statistics(
    source_only: UNet,
    source: Domain,
    target: StylisedDomain,
    config: StyleFilterConfig,
    run: Run,
) -> UNet:
    """A copy of ``source_only`` with batch norm's statistics of the target; nothing is trained.

    AdaBN (Li et al. 2016), from the crops that every method here estimates them from before a
    validation: what of a method's gain is due to its statistics alone. ValueError without batch
    norm.
    """
    if not norms(source_only):
        raise ValueError("AdaBN needs a segmenter with batch norm: set segmenter.norm to batch")
    pair = Pair(source, target)
    read = {"crop_px", "batch_size", "augmentation", "norm_statistics"}
    facts = identity.MethodFacts(
        labels=False,
        settings={"method": "adabn"},
        unused=AdaptationConfig.model_fields.keys() - read,
    )
    this = identity.of_adaptation(source_only, source, target, config, facts)
    if finished := run.finished("adapt", this):
        return load_segmenter(finished, next(source_only.parameters()).device)[0]
    segmenter = copy.deepcopy(source_only)
    _Adaptation(segmenter, pair, config).estimate_statistics()
    if rank() == 0:
        run.report(Progress("adapt", 1, 1, {}))
    return segmenter.eval()


def source_loss(
    segmenter: UNet, batch: SourceBatch, config: AdaptationConfig, num_known: Tensor
) -> Tensor:
    """CE(x_s, m_s) over ``num_known`` pixels; batch norm's statistics stay the target's own."""
    own_statistics = config.norm_statistics == "target"
    with statistics_kept(segmenter) if own_statistics else nullcontext():
        return supervised_loss(segmenter, batch, config, num_known)


class _Adaptation:
    """Samples, lengths, validation and the choice of weights."""

    def __init__(self, segmenter: UNet, pair: Pair, config: StyleFilterConfig) -> None:
        self._config, self._segmenter = config.adaptation, segmenter
        self._source, self._target = pair.source, pair.target
        self._device = next(segmenter.parameters()).device
        self._sections = pair.source.training_sections(masked=True), pair.target.training_sections()
        self._samplers = (
            Sampler(self._sections[0], config.seed, "adapt", "source"),
            Sampler(self._sections[1], config.seed, "adapt", "target"),
        )
        self._statistics = Sampler(self._sections[1], config.seed, "adapt", "statistics")

    def task(self, learner: Learner[Batch], this: str) -> Task[Batch]:
        config, size = self._config, self._config.batch_size
        per_epoch = sections_per_epoch(config, *map(len, self._sections))
        length = Lengths.of(config, per_epoch, num_processes=num_processes())
        by = {"target_val": "dice/mean", "source_val": "source_dice/mean", "last": None}
        return Task(
            stage="adapt",
            identity=this,
            steps=length.steps,
            modules={"segmenter": self._segmenter, **learner.modules},
            optimisers=learner.optimisers,
            batch=lambda step: learner.batch(*(own_samples(s, step, size) for s in self._samplers)),
            step=lambda _, batch: learner.step(batch),
            keep=KeepBest(
                self._segmenter,
                self._validate,
                length.interval,
                by[config.select_on],
                self._scores if config.start_eligible else dict,
            ),
            picture=lambda: preview.segmentation(self._segmenter, self._target, config.crop_px),
        )

    def estimate_statistics(self) -> None:
        """Of what the network will segment, target crops, with the noise it was trained on."""
        if self._config.norm_statistics != "target":
            return
        config = self._config.model_copy(update={"student_view": "stylised"})
        size = config.batch_size
        samples = (self._statistics.batch(n + 1, size) for n in range(-(-_CROPS // size)))
        crops = (target_batch(self._target, batch, config).students[:, 0] for batch in samples)
        estimate_statistics(self._segmenter, (as_input(crop, self._device) for crop in crops))
        if not all(bool(buffer.isfinite().all()) for buffer in self._segmenter.buffers()):
            raise NonFiniteLoss("stage adapt: the target's statistics are not finite")

    def _validate(self) -> Mapping[str, float]:
        self.estimate_statistics()
        return self._scores()

    def _scores(self) -> Mapping[str, float]:
        """DICE on both domains' validation masks: the target's under plain names."""
        scores = validate(self._segmenter, self._source, self._config)
        on_source = {f"source_{name}": score for name, score in scores.items()}
        return {**validate(self._segmenter, self._target, self._config), **on_source}
