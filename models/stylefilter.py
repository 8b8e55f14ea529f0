"""StyleFilter: section 2 of the paper, in its order."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.adaptation import Learner, Method, Pair, adapt_by, source_loss
from models.config import StyleFilterConfig
from models.data.domain import IGNORE, Domain
from models.data.samples import SourceBatch, TargetBatch, parts, source_batch, target_batch
from models.data.sampling import Sample
from models.data.stylised import StylisedDomain
from models.inference import Rendering, stylise_domain
from models.losses import cross_entropy
from models.networks.generator import Generator
from models.networks.statistics import statistics_kept
from models.networks.unet import UNet
from models.pseudo_labels import pseudo_labels
from models.segmentation import adamw, as_input, pixels_of_all, pretrain
from models.style_transfer import train_style
from models.training.device import check_stages
from models.training.identity import MethodFacts
from models.training.loop import Run, autocast, to_device, update
from models.training.parallel import mean_count


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
    check_stages(config, ("pretrain", "style", "adapt"))
    # The paper trains the style first. Neither needs the other, unless the style is chosen by it.
    source_only = pretrain(source, config, run)
    style = train_style(source, target, config, run, source_only)
    stylised = stylise_domain(Rendering.by(style), target, workspace / "stylised.zarr", run.report)
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
    pair, frozen = Pair(source, target), config.adaptation.pseudo_labeler == "frozen"
    method = Method(
        lambda segmenter: _StyleFilter(segmenter, pair, config).learner(),
        MethodFacts(
            labels=config.adaptation.label_filter,
            settings={"labels_with": "stored statistics"} if frozen else {},
        ),
    )
    return adapt_by(method, source_only, pair, config, run)


class _StyleFilter:
    """The third step's networks and update."""

    def __init__(self, segmenter: UNet, pair: Pair, config: StyleFilterConfig) -> None:
        self._config, self._pair = config.adaptation, pair
        self._segmenter = segmenter
        self._device = next(segmenter.parameters()).device
        self._optimiser = adamw(segmenter, self._config)
        frozen = self._config.pseudo_labeler != "current"
        self._labeler = copy.deepcopy(segmenter) if frozen else segmenter

    def learner(self) -> Learner[tuple[SourceBatch, TargetBatch]]:
        averaged = self._config.pseudo_labeler == "ema"
        return Learner(
            batch=self._batch,
            step=self._step,
            optimisers={"segmenter": self._optimiser},
            modules={"labeler": self._labeler} if averaged else {},
        )

    def _batch(
        self, x_s: Sequence[Sample], x_t: Sequence[Sample]
    ) -> tuple[SourceBatch, TargetBatch]:
        return (
            source_batch(self._pair.source, x_s, self._config),
            target_batch(self._pair.target, x_t, self._config),
        )

    def _step(self, batch: tuple[SourceBatch, TargetBatch]) -> Mapping[str, float]:
        config = self._config
        x_s, x_t = parts(batch[0], config.accumulate), parts(batch[1], config.accumulate)
        labels = [self._labels(part) for part in x_t]
        known_s = pixels_of_all(batch[0].masks != IGNORE, self._device)
        known_t = mean_count(torch.stack([(part != IGNORE).sum() for part in labels]).sum())
        self._segmenter.train()

        def losses() -> Iterator[Tensor]:
            for source, target, target_labels in zip(x_s, x_t, labels, strict=True):
                yield source_loss(self._segmenter, source, config, known_s)
                yield self._target_loss(target, target_labels, known_t)

        values = update(losses(), self._optimiser)
        if config.pseudo_labeler == "ema":
            follow(self._labeler, self._segmenter, config.ema_decay)
        return {"loss_source": sum(values[0::2]), "loss_target": sum(values[1::2])}

    @torch.no_grad()
    def _labels(self, batch: TargetBatch) -> Tensor:
        """P_filter(x*_t, l_t), without gradient; 255 where padded.

        Batch norm takes the batch's own statistics, as it does for the student: with stored ones
        the labels of weights that change drift from what the student can learn, and training with
        them diverges. The source-only weights, which do not change, label as they would segment.
        """
        changing = self._config.pseudo_labeler != "frozen"
        self._labeler.train(changing and self._config.norm_statistics == "target")
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
                logits = self._segmenter(as_input(view, self._device))
            losses.append(cross_entropy(logits, labels, num_known))
        return torch.stack(losses).mean()


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
