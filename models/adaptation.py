"""The training loop that all adaptations of a segmenter share.

Each step draws samples of both domains, and validations choose the weights that are kept. A method
(``pseudo_labels.py``, and those in ``baselines/``) is a ``Learner``: it learns from these samples.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor, nn, optim

from models.checkpoint import load_segmenter
from models.config.augmentation import StrongAugmentationConfig
from models.config.stages import AdaptationConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.data.samples import SourceBatch, target_batch
from models.data.sampling import Sample, Sampler
from models.data.stylised import StylisedDomain
from models.networks.statistics import estimate_statistics, statistics_kept
from models.networks.unet import UNet
from models.segmentation import as_input, own_samples, supervised_loss, validate
from models.training import identity, preview
from models.training.lengths import Lengths, sections_per_epoch
from models.training.loop import KeepBest, NonFiniteLoss, Run, Task, set_rate, train
from models.training.parallel import num_processes

Batch = TypeVar("Batch")

SELF_TRAINING = frozenset({"label_filter", "student_view", "pseudo_labeler", "ema_decay"})
"""The fields of ``config.adaptation`` that methods without pseudo-labels do not read."""

_CROPS = 64  # target crops from which batch norm's statistics are estimated


@dataclass(frozen=True)
class Pair:
    """The labelled source, and the target in the style that the segmenter is to see."""

    source: Domain
    target: StylisedDomain


@dataclass(frozen=True)
class Learner(Generic[Batch]):
    """A method of adaptation, as the common loop runs it.

    ``segmenter`` has the weights that training starts from, and is trained in place. These weights,
    the data, ``config.adaptation`` and ``facts`` decide the result. ``batch`` turns a step's
    samples of source and target into arrays; it runs ahead in a thread. ``step`` updates all
    weights once and returns the losses by name. A step changes nothing but the segmenter,
    ``optimisers`` and ``modules``. ``adaptation.learning_rate_decay`` decays the rate of the
    optimiser ``segmenter``. ``before_scores`` makes the segmenter what is to be scored and
    kept; without it, batch norm's statistics are estimated if ``norm_statistics`` is ``target``.
    """

    segmenter: UNet
    facts: identity.MethodFacts
    batch: Callable[[Sequence[Sample], Sequence[Sample]], Batch]
    step: Callable[[Batch], Mapping[str, float]]
    optimisers: Mapping[str, optim.Optimizer]
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    before_scores: Callable[[], None] | None = None


def adapt_by(learner: Learner[Batch], pair: Pair, config: StyleFilterConfig, run: Run) -> UNet:
    """Train ``learner.segmenter`` and return it in eval mode, with the weights that were chosen.

    ``config.adaptation.select_on`` names the rule that chooses them. A result of the same
    identity that ``run.finished`` finds is loaded and not trained again.

    Raises:
        ValueError: a domain has no training sections, or (as NonFiniteLoss) a loss is not finite.
    """
    segmenter = learner.segmenter
    this = identity.of_adaptation(segmenter, pair.source, pair.target, config, learner.facts)
    if finished := run.finished("adapt", this):
        return load_segmenter(finished, next(segmenter.parameters()).device)[0]
    task = _task(learner, pair, config, run, this)
    train(task, run)
    if run.others is not None and task.keep is not None:
        run.others.kept.update(task.keep.others)
    return segmenter.eval()


def estimate_on_target(segmenter: UNet, target: StylisedDomain, config: StyleFilterConfig) -> None:
    """Estimate batch norm's statistics from images like those that the network will segment.

    These are 64 stylised target crops, with ordinary noise: no image is blurred or cut out.

    Raises:
        NonFiniteLoss: a statistic is not finite.
    """
    ordinary = config.adaptation.augmentation.model_copy(
        update={"strong": StrongAugmentationConfig()}
    )
    stage = config.adaptation.model_copy(
        update={"student_view": "stylised", "augmentation": ordinary}
    )
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
    """Return CE(x_s, m_s), as (): the sum over the batch, divided by ``num_known`` pixels.

    Batch norm's stored statistics stay as they are if ``norm_statistics`` is ``target``.
    """
    with source_pass(segmenter, config):
        return supervised_loss(segmenter, batch, config, num_known)


def source_pass(segmenter: UNet, config: AdaptationConfig) -> AbstractContextManager[None]:
    """Keep batch norm's statistics the target's own, if asked for, while a source batch passes."""
    own_statistics = config.norm_statistics == "target"
    return statistics_kept(segmenter) if own_statistics else nullcontext()


def _task(
    learner: Learner[Batch], pair: Pair, config: StyleFilterConfig, run: Run, this: str
) -> Task[Batch]:
    """Return the stage: it draws samples of both domains, validates, and keeps the best weights."""
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

    def step(number: int, batch: Batch) -> Mapping[str, float]:
        rate = stage.learning_rate * length.schedule.factor(number)
        set_rate(learner.optimisers["segmenter"], rate)
        return learner.step(batch)

    def scores() -> Mapping[str, float]:
        return _scores(segmenter, pair, stage)

    def prepared_scores() -> Mapping[str, float]:
        if learner.before_scores is not None:
            learner.before_scores()
        elif stage.norm_statistics == "target":
            # Anew each time: the statistics describe one set of weights.
            estimate_on_target(segmenter, pair.target, config)
        return scores()

    return Task(
        stage="adapt",
        identity=this,
        steps=length.steps,
        modules={"segmenter": segmenter, **learner.modules},
        optimisers=learner.optimisers,
        batch=batch,
        step=step,
        keep=KeepBest(
            segmenter,
            prepared_scores,
            length.interval,
            by[stage.select_on],
            # The weights of the source alone bring statistics of their own: none to estimate.
            scores if stage.start_eligible else dict,
        ).beside({} if run.others is None else run.others.of(segmenter, pair.target)),
        picture=lambda: preview.segmentation(segmenter, pair.target, stage.crop_px),
    )


def _scores(segmenter: UNet, pair: Pair, config: AdaptationConfig) -> Mapping[str, float]:
    """Return DICE on both domains' validation masks; names of the source begin with ``source_``."""
    scores = validate(segmenter, pair.source, config)
    on_source = {f"source_{name}": score for name, score in scores.items()}
    return {**validate(segmenter, pair.target, config), **on_source}
