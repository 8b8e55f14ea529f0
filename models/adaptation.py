"""The loop that every adaptation of a segmenter shares: samples of both domains, and the choice.

A method (``pseudo_labels.py``, and those in ``baselines/``) adds what it learns from the target: a
``Learner``.
"""

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
from models.networks.statistics import estimate_statistics, statistics_kept
from models.networks.unet import UNet
from models.segmentation import as_input, own_samples, supervised_loss, validate
from models.training import identity, preview
from models.training.lengths import Lengths, sections_per_epoch
from models.training.loop import KeepBest, NonFiniteLoss, Run, Task, train
from models.training.parallel import num_processes

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
class Learner(Generic[Batch]):
    """The segmenter to train, and what a method adds to the common loop.

    ``segmenter`` has the weights that training starts from, and is trained in place. ``facts``
    decide the result beside these weights, the data and ``config.adaptation``. ``batch`` makes a
    step's arrays of its samples of the source and of the target; it runs ahead in a thread.
    ``step`` updates all weights once and returns the losses by name. ``optimisers`` and
    ``modules``, with the segmenter, are everything that a step changes.
    """

    segmenter: UNet
    facts: identity.MethodFacts
    batch: Callable[[Sequence[Sample], Sequence[Sample]], Batch]
    step: Callable[[Batch], Mapping[str, float]]
    optimisers: Mapping[str, optim.Optimizer]
    modules: Mapping[str, nn.Module] = field(default_factory=dict)


def adapt_by(learner: Learner[Batch], pair: Pair, config: StyleFilterConfig, run: Run) -> UNet:
    """Train ``learner.segmenter``; ``adaptation.select_on`` says which weights are kept."""
    segmenter = learner.segmenter
    this = identity.of_adaptation(segmenter, pair.source, pair.target, config, learner.facts)
    if finished := run.finished("adapt", this):
        return load_segmenter(finished, next(segmenter.parameters()).device)[0]
    train(_task(learner, pair, config, this), run)
    return segmenter.eval()


def estimate_on_target(segmenter: UNet, target: StylisedDomain, config: StyleFilterConfig) -> None:
    """Estimate batch norm's statistics from what the network will segment.

    These are 64 stylised target crops, with the noise that the network was trained on. Raises
    NonFiniteLoss where a statistic is not finite.
    """
    stage = config.adaptation.model_copy(update={"student_view": "stylised"})
    sampler = Sampler(target.training_sections(), config.seed, "adapt", "statistics")
    device, size = next(segmenter.parameters()).device, stage.batch_size
    samples = (sampler.batch(n + 1, size) for n in range(-(-_CROPS // size)))
    crops = (target_batch(target, batch, stage).students[:, 0] for batch in samples)
    estimate_statistics(segmenter, (as_input(crop, device) for crop in crops))
    if not all(bool(buffer.isfinite().all()) for buffer in segmenter.buffers()):
        raise NonFiniteLoss("stage adapt: the target's statistics are not finite")


def source_loss(
    segmenter: UNet, batch: SourceBatch, config: AdaptationConfig, num_known: Tensor
) -> Tensor:
    """Return CE(x_s, m_s) over ``num_known`` pixels; batch norm's statistics stay the target's."""
    own_statistics = config.norm_statistics == "target"
    with statistics_kept(segmenter) if own_statistics else nullcontext():
        return supervised_loss(segmenter, batch, config, num_known)


def _task(learner: Learner[Batch], pair: Pair, config: StyleFilterConfig, this: str) -> Task[Batch]:
    """Draw samples of both domains for each step, validate, and keep the weights asked for."""
    stage, segmenter = config.adaptation, learner.segmenter
    sections = pair.source.training_sections(masked=True), pair.target.training_sections()
    samplers = (
        Sampler(sections[0], config.seed, "adapt", "source"),
        Sampler(sections[1], config.seed, "adapt", "target"),
    )
    per_epoch = sections_per_epoch(stage, *map(len, sections))
    length = Lengths.of(stage, per_epoch, num_processes=num_processes())
    by = {"target_val": "dice/mean", "source_val": "source_dice/mean", "last": None}

    def batch(step: int) -> Batch:
        return learner.batch(*(own_samples(s, step, stage.batch_size) for s in samplers))

    def scores() -> Mapping[str, float]:
        return _scores(segmenter, pair, stage)

    def estimated_scores() -> Mapping[str, float]:
        if stage.norm_statistics == "target":
            estimate_on_target(segmenter, pair.target, config)
        return scores()

    return Task(
        stage="adapt",
        identity=this,
        steps=length.steps,
        modules={"segmenter": segmenter, **learner.modules},
        optimisers=learner.optimisers,
        batch=batch,
        step=lambda _, batch: learner.step(batch),
        keep=KeepBest(
            segmenter,
            estimated_scores,
            length.interval,
            by[stage.select_on],
            scores if stage.start_eligible else dict,
        ),
        picture=lambda: preview.segmentation(segmenter, pair.target, stage.crop_px),
    )


def _scores(segmenter: UNet, pair: Pair, config: AdaptationConfig) -> Mapping[str, float]:
    """Return DICE on both domains' validation masks: the target's under plain names."""
    scores = validate(segmenter, pair.source, config)
    on_source = {f"source_{name}": score for name, score in scores.items()}
    return {**validate(segmenter, pair.target, config), **on_source}
