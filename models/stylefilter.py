"""StyleFilter: section 2 of the paper, in its order."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models import identity, preview
from models.checkpoint import load_segmenter
from models.config import StyleFilterConfig
from models.data.domain import IGNORE, Domain
from models.data.samples import SourceBatch, TargetBatch, parts, source_batch, target_batch
from models.data.sampling import Sampler
from models.data.stylised import StylisedDomain
from models.inference import stylise_domain
from models.lengths import Lengths, sections_per_epoch
from models.losses import cross_entropy
from models.networks.generator import Generator
from models.networks.statistics import estimate_statistics, statistics_kept
from models.networks.unet import UNet
from models.parallel import mean_count, num_processes
from models.pseudo_labels import pseudo_labels
from models.segmentation import (
    adamw,
    as_input,
    own_samples,
    pixels_of_all,
    pretrain,
    supervised_loss,
    validate,
)
from models.style_transfer import train_style
from models.training import (
    KeepBest,
    NonFiniteLoss,
    Run,
    Task,
    autocast,
    to_device,
    train,
    update,
)

_CROPS = 64  # of the stylised target, to estimate batch norm's statistics from


@dataclass(frozen=True)
class AdaptedModels:
    """What an adaptation leaves: theta_style, the source-only segmenter, and the adapted one."""

    style: Generator
    source_only: UNet
    adapted: UNet


def adapt(
    source: Domain,
    target: Domain,
    config: StyleFilterConfig,
    run: Run,
    workspace: Path,
) -> AdaptedModels:
    """Adapt from ``source`` to ``target``.

    ``workspace`` takes the stylised target images.
    """
    check_pair(source, target)
    style = train_style(source, target, config, run)
    source_only = pretrain(source, config, run)
    stylised = stylise_domain(style, target, workspace / "stylised.zarr", run.report)
    adapted = adapt_segmenter(source_only, source, stylised, config, run)
    return AdaptedModels(style, source_only, adapted)


def adapt_segmenter(
    source_only: UNet,
    source: Domain,
    target: StylisedDomain,
    config: StyleFilterConfig,
    run: Run,
) -> UNet:
    """Train a copy of ``source_only`` with L_SF = CE(x_s, m_s) + CE(x_t, P_filter(x*_t, l_t)).

    Source and target go through the network apart, so that neither changes the other's batch
    statistics. ``select_on`` says which weights are kept.
    """
    this = identity.of_adaptation(source_only, source, target, config)
    if finished := run.finished("adapt", this):
        return load_segmenter(finished, next(source_only.parameters()).device)[0]
    adaptation = _Adaptation(source_only, source, target, config)
    train(adaptation.task(this), run)
    return adaptation.segmenter.eval()


class _Adaptation:
    """The third step's networks, samples and update."""

    def __init__(
        self, source_only: UNet, source: Domain, target: StylisedDomain, config: StyleFilterConfig
    ) -> None:
        self._config, self._source, self._target = config.adaptation, source, target
        self.segmenter = copy.deepcopy(source_only)
        self._device = next(self.segmenter.parameters()).device
        self._optimiser = adamw(self.segmenter, self._config)
        self._labeler = {
            "current": self.segmenter,
            "frozen": copy.deepcopy(source_only),
            "ema": copy.deepcopy(source_only),
        }[self._config.pseudo_labeler]
        self._sections = source.training_sections(masked=True), target.training_sections()
        self._samplers = (
            Sampler(self._sections[0], config.seed, "adapt", "source"),
            Sampler(self._sections[1], config.seed, "adapt", "target"),
        )
        self._statistics = Sampler(self._sections[1], config.seed, "adapt", "statistics")

    def task(self, identity: str) -> Task[tuple[SourceBatch, TargetBatch]]:
        per_epoch = sections_per_epoch(self._config, *map(len, self._sections))
        length = Lengths.of(self._config, per_epoch, num_processes=num_processes())
        by = {"target_val": "dice/mean", "source_val": "source_dice/mean", "last": None}
        modules = {"segmenter": self.segmenter}
        if self._config.pseudo_labeler == "ema":
            modules["labeler"] = self._labeler
        return Task(
            stage="adapt",
            identity=identity,
            steps=length.steps,
            modules=modules,
            optimisers={"segmenter": self._optimiser},
            batch=self._batch,
            step=self._step,
            keep=KeepBest(
                self.segmenter,
                self._validate,
                length.interval,
                by[self._config.select_on],
                self._scores if self._config.start_eligible else dict,
            ),
            picture=lambda: preview.segmentation(
                self.segmenter, self._target, self._config.crop_px
            ),
        )

    def _batch(self, step: int) -> tuple[SourceBatch, TargetBatch]:
        x_s, x_t = (own_samples(s, step, self._config.batch_size) for s in self._samplers)
        return (
            source_batch(self._source, x_s, self._config),
            target_batch(self._target, x_t, self._config),
        )

    def _step(self, _: int, batch: tuple[SourceBatch, TargetBatch]) -> Mapping[str, float]:
        config = self._config
        x_s, x_t = parts(batch[0], config.accumulate), parts(batch[1], config.accumulate)
        labels = [self._labels(part) for part in x_t]
        known_s = pixels_of_all(batch[0].masks != IGNORE, self._device)
        known_t = mean_count(torch.stack([(part != IGNORE).sum() for part in labels]).sum())
        own_statistics = config.norm_statistics == "target"
        self.segmenter.train()

        def losses() -> Iterator[Tensor]:
            for source, target, target_labels in zip(x_s, x_t, labels, strict=True):
                with statistics_kept(self.segmenter) if own_statistics else nullcontext():
                    loss_source = supervised_loss(self.segmenter, source, config, known_s)
                yield loss_source
                yield self._target_loss(target, target_labels, known_t)

        values = update(losses(), self._optimiser)
        if config.pseudo_labeler == "ema":
            follow(self._labeler, self.segmenter, config.ema_decay)
        return {"loss_source": sum(values[0::2]), "loss_target": sum(values[1::2])}

    @torch.no_grad()
    def _labels(self, batch: TargetBatch) -> Tensor:
        """P_filter(x*_t, l_t), without gradient; 255 where padded.

        Batch norm takes the batch's own statistics, as it does for the student: with stored ones
        the labels drift from what the student can learn, and training with them diverges.
        """
        own_statistics = self._config.norm_statistics == "target"
        self._labeler.train(own_statistics)
        with autocast(self._device, self._config.precision), statistics_kept(self._labeler):
            logits = self._labeler(as_input(batch.stylised, self._device))
        allowed = to_device(batch.allowed, self._device) if self._config.label_filter else None
        labels = pseudo_labels(logits, allowed)
        return labels.masked_fill(~to_device(batch.inside, self._device), IGNORE)

    def _target_loss(self, batch: TargetBatch, labels: Tensor, num_known: Tensor) -> Tensor:
        """CE(x_t, labels), the mean over the views the student sees."""
        views = np.moveaxis(batch.students, 1, 0)  # (V, B, 1, S, S)
        losses = []
        for view in views:
            with autocast(self._device, self._config.precision):
                logits = self.segmenter(as_input(view, self._device))
            losses.append(cross_entropy(logits, labels, num_known))
        return torch.stack(losses).mean()

    def _estimate_statistics(self) -> None:
        """Of what the network will segment, stylised crops, with the noise it was trained on."""
        if self._config.norm_statistics != "target":
            return
        config = self._config.model_copy(update={"student_view": "stylised"})
        size = config.batch_size
        samples = (self._statistics.batch(n + 1, size) for n in range(-(-_CROPS // size)))
        crops = (target_batch(self._target, batch, config).students[:, 0] for batch in samples)
        estimate_statistics(self.segmenter, (as_input(crop, self._device) for crop in crops))
        if not all(bool(buffer.isfinite().all()) for buffer in self.segmenter.buffers()):
            raise NonFiniteLoss("stage adapt: the stylised target's statistics are not finite")

    def _validate(self) -> Mapping[str, float]:
        self._estimate_statistics()
        return self._scores()

    def _scores(self) -> Mapping[str, float]:
        """DICE on both domains' validation masks: the target's under plain names."""
        scores = validate(self.segmenter, self._source, self._config)
        on_source = {f"source_{name}": score for name, score in scores.items()}
        return {**validate(self.segmenter, self._target, self._config), **on_source}


@torch.no_grad()
def follow(average: UNet, current: UNet, decay: float) -> None:
    """Move an exponential moving average of weights and statistics towards the current ones."""
    ours, theirs = average.state_dict(), current.state_dict()
    for name, value in ours.items():
        if value.is_floating_point():
            value.lerp_(theirs[name], 1 - decay)
        else:
            value.copy_(theirs[name])


def check_pair(source: Domain, target: Domain) -> None:
    """Refuse domains that do not share classes and working pixel size."""
    if source.info.class_names != target.info.class_names:
        raise ValueError(
            f"source classes {source.info.class_names} and target classes "
            f"{target.info.class_names} differ"
        )
    if source.working_nm != target.working_nm:
        raise ValueError(
            f"working pixel sizes differ: {source.working_nm} nm and {target.working_nm} nm"
        )
