"""Step 3 of StyleFilter: training with pseudo-labels, plain (Eq. 2) or filtered (Eq. 3).

Legend: B batch, V views of the student, C classes, S side of the crop.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from models.adaptation import Learner, Pair, adapt_by, source_loss
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain
from models.data.samples import SourceBatch, TargetBatch, parts, source_batch, target_batch
from models.data.sampling import Sample
from models.data.stylised import StylisedDomain
from models.losses import cross_entropy
from models.networks.statistics import statistics_kept
from models.networks.unet import UNet
from models.segmentation import adamw, as_input, pixels_of_all
from models.training import identity
from models.training.identity import MethodFacts
from models.training.loop import Run, autocast, to_device, update
from models.training.parallel import mean_count

Batch = tuple[SourceBatch, TargetBatch]


def adapt_segmenter(
    source_only: UNet,
    source: Domain,
    target: StylisedDomain,
    config: StyleFilterConfig,
    run: Run,
) -> UNet:
    """Train a copy of ``source_only`` with L_SF = CE(x_s, m_s) + CE(x_t, P_filter(x*_t, l_t)).

    Source and target go through the network separately, so that neither changes the other's batch
    statistics. ``config.adaptation.select_on`` chooses the weights that are kept.

    Raises:
        ValueError: a domain has no training sections, or (as NonFiniteLoss) a loss is not finite.
    """
    pair = Pair(source, target)
    learner = _SelfTraining(copy.deepcopy(source_only), pair, config).learner()
    return adapt_by(learner, pair, config, run)


def pseudo_labels(logits: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Return the most likely class of each pixel among the allowed ones: (B, H, W) int64.

    ``logits`` is (B, C, H, W), ``allowed`` (B, C, H, W) bool; without it every class is allowed.
    Eq. 3 multiplies probabilities by 0 or 1. Minus infinity on the logits selects the same class;
    where nothing is allowed the answer is 255 (ignored), while the product would answer class 0.
    """
    if allowed is None:
        return logits.argmax(dim=1)  # Eq. 2
    labels = logits.masked_fill(~allowed, -torch.inf).argmax(dim=1)  # Eq. 3
    return labels.masked_fill(~allowed.any(dim=1), IGNORE)


class _SelfTraining:
    """The networks of the third step, and their update."""

    def __init__(self, segmenter: UNet, pair: Pair, config: StyleFilterConfig) -> None:
        self._config, self._pair = config.adaptation, pair
        self._segmenter = segmenter
        self._device = next(segmenter.parameters()).device
        self._optimiser = adamw(segmenter, self._config)
        # The weights being trained label for themselves; others are a copy of the start.
        frozen = self._config.pseudo_labeler != "current"
        self._labeler = copy.deepcopy(segmenter) if frozen else segmenter

    def learner(self) -> Learner[Batch]:
        labeler, frozen = self._config.pseudo_labeler, self._config.pseudo_labeler == "frozen"
        return Learner(
            segmenter=self._segmenter,
            facts=MethodFacts(
                labels=self._config.label_filter,
                settings=identity.FROZEN_LABELER if frozen else {},
            ),
            batch=self._batch,
            step=self._step,
            optimisers={"segmenter": self._optimiser},
            modules={"labeler": self._labeler} if labeler == "ema" else {},
        )

    def _batch(self, x_s: Sequence[Sample], x_t: Sequence[Sample]) -> Batch:
        return (
            source_batch(self._pair.source, x_s, self._config),
            target_batch(self._pair.target, x_t, self._config),
        )

    def _step(self, batch: Batch) -> Mapping[str, float]:
        config = self._config
        x_s, x_t = parts(batch[0], config.accumulate), parts(batch[1], config.accumulate)
        # All labels come first: the divisor counts the labelled pixels of the whole batch.
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
        # ``losses`` yields source and target in turn.
        return {"loss_source": sum(values[0::2]), "loss_target": sum(values[1::2])}

    @torch.no_grad()
    def _labels(self, batch: TargetBatch) -> Tensor:
        """Return P_filter(x*_t, l_t): (B, S, S) int64, 255 in padding, without gradient.

        Weights that change label with the batch's own statistics, as the student learns with them:
        labels made with stored statistics drift from what the student can learn, and training
        diverges. The source-only weights do not change, and label as they would segment.
        """
        changing = self._config.pseudo_labeler != "frozen"
        self._labeler.train(changing and self._config.norm_statistics == "target")
        with autocast(self._device, self._config.precision), statistics_kept(self._labeler):
            logits = self._labeler(as_input(batch.stylised, self._device))
        allowed = to_device(batch.allowed, self._device) if self._config.label_filter else None
        labels = pseudo_labels(logits, allowed)
        return labels.masked_fill(~to_device(batch.inside, self._device), IGNORE)

    def _target_loss(self, batch: TargetBatch, labels: Tensor, num_known: Tensor) -> Tensor:
        """Return CE(x_t, labels), as (): the mean over the views that the student sees."""
        views = np.moveaxis(batch.students, 1, 0)  # (V, B, 1, S, S)
        losses = []
        for view in views:
            with autocast(self._device, self._config.precision):
                logits = self._segmenter(as_input(view, self._device))
            losses.append(cross_entropy(logits, labels, num_known))
        return torch.stack(losses).mean()


@torch.no_grad()
def follow(average: UNet, current: UNet, decay: float) -> None:
    """Move an exponential moving average of weights and statistics towards the current ones.

    Each value becomes ``decay`` times itself plus 1 - ``decay`` times the current one.
    """
    ours, theirs = average.state_dict(), current.state_dict()
    for name, value in ours.items():
        if value.is_floating_point():
            value.lerp_(theirs[name], 1 - decay)
        else:  # batch norm's count of batches
            value.copy_(theirs[name])
