"""Self-training in rounds, with image-level labels that remove classes, add them, and are learnt.

Before each round the averaged weights label whole training sections anew, for labels made once by
the source-only weights are the limit of what a student can reach. The averaged weights are the
result, too.

Legend: B batch, S side of the crop.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.adaptation import Learner, Pair, adapt_by, estimate_on_target, source_loss
from models.baselines.regions import tiles_of
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain
from models.data.labels import UNKNOWN
from models.data.samples import SourceBatch, TargetBatch, source_batch, target_batch
from models.data.sampling import Sample
from models.data.stylised import StylisedDomain
from models.labels_used.area import class_bias, fold, predicted_in_tiles, prior_by_labels
from models.labels_used.points import PointDiscs, point_facts
from models.labels_used.presence import TilePixels, presence_loss
from models.labels_used.section_labels import SectionLabels
from models.labels_used.training_labels import TrainingLabels
from models.labels_used.training_masks import masked_sections
from models.losses import cross_entropy
from models.networks.unet import UNet
from models.pseudo_labels import follow
from models.segmentation import adamw, as_input, pixels_of_all
from models.training.identity import MethodFacts
from models.training.loop import Run, autocast, to_device, update

UNUSED = frozenset({"pseudo_labeler", "ema_decay", "norm_statistics"})
"""The fields of ``config.adaptation`` in whose place ``config.rounds`` has fields of its own."""

NO_NOISE = {"brightness": 0.0, "contrast": 0.0, "noise_sigma": 0.0, "strong": {"probability": 0.0}}
"""The fields of ``config.adaptation.augmentation`` with which crops have no noise."""


def adapt_in_rounds(
    source_only: UNet,
    source: Domain,
    target: StylisedDomain,
    config: StyleFilterConfig,
    run: Run,
) -> UNet:
    """Train a copy of ``source_only`` with CE(x_s, m_s) + CE(x_t, labels) + weight * presence.

    The labels are those of ``SectionLabels``, made of the images of ``target``; the student sees
    the view ``config.adaptation.student_view``. The result are averaged weights, of which
    ``config.adaptation.select_on`` chooses. ``config.rounds`` explains each part.

    Raises:
        ValueError: a domain has no training sections, the target lacks a masked section that is
            asked for, or (as NonFiniteLoss) a loss is not finite.
    """
    pair = Pair(source, target)
    return adapt_by(_Rounds(source_only, pair, config).learner(), pair, config, run)


@dataclass(frozen=True)
class Part:
    """A batch, or one of the parts in which a batch is computed, with the target's tiles in it.

    ``points`` (B, S, S) int64 holds the class of each pixel around a point, and 255 elsewhere.
    """

    source: SourceBatch
    target: TargetBatch
    tiles: TilePixels
    points: NDArray[np.int64]


@dataclass(frozen=True)
class Known:
    """The numbers of known pixels, tile labels and pixels around points in a batch, each ()."""

    pixels: Tensor
    labels: Tensor
    points: Tensor


class Average(nn.Module):
    """An exponential moving average of a network's weights; ``updates`` counts its steps."""

    updates: Tensor

    def __init__(self, network: UNet, decay: float) -> None:
        super().__init__()
        self.network, self._decay = copy.deepcopy(network), decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def follow(self, current: UNet) -> None:
        """Move towards the current weights: by 1 - decay, and by more in the first steps."""
        self.updates += 1
        number = int(self.updates)
        follow(self.network, current, min(self._decay, number / (number + 9)))

    def restart(self, network: UNet) -> None:
        """Take a network's weights, and forget all others."""
        self.network.load_state_dict(network.state_dict())
        self.updates.zero_()


class _Rounds:
    """The student, its average, the weights that label, and the result that comes of them."""

    def __init__(self, source_only: UNet, pair: Pair, config: StyleFilterConfig) -> None:
        self._pair, self._config, self._rounds = pair, config, config.rounds
        self._stage, self._source_only = config.adaptation, source_only.eval()
        strong = {"augmentation": {"strong": self._rounds.strong}}
        self._strong = config.adaptation.changed(strong)
        self._student, self._labeler, self._result = (copy.deepcopy(source_only) for _ in range(3))
        self._average = Average(source_only, self._rounds.ema_decay)
        self._device = next(source_only.parameters()).device
        self._optimiser = adamw(self._student, self._stage)
        num_tiles = TrainingLabels.of(pair.target).num_tiles
        trust = min(1.0, num_tiles / self._rounds.presence_tiles)
        self._factors = {
            "loss_source": 1.0,
            "loss_target": 1.0,
            "loss_presence": trust * self._rounds.presence_weight,
        }
        self._discs = PointDiscs(pair.target, self._rounds)
        if self._discs.any:
            self._factors["loss_points"] = self._rounds.point_weight
        self._masked = masked_sections(pair.target.sections, self._rounds.masked_sections)
        self._prior = prior_by_labels(pair.source, pair.target)
        self._labels = SectionLabels(
            self._labeler, self._source_only, pair.target, config, self._prior
        )

    def learner(self) -> Learner[Sequence[Part]]:
        return Learner(
            segmenter=self._result,
            facts=MethodFacts(
                labels=True,
                settings={
                    "method": "rounds",
                    **self._rounds.deciding(),
                    **point_facts(self._pair.target, self._rounds),
                },
                unused=UNUSED,
            ),
            batch=self._batch,
            step=self._step,
            optimisers={"segmenter": self._optimiser},
            modules={
                "student": self._student,
                "average": self._average,
                "labeler": self._labeler,
            },
            before_scores=self._finish,
        )

    def _batch(self, x_s: Sequence[Sample], x_t: Sequence[Sample]) -> Sequence[Part]:
        # Samples are divided, not arrays: parts have different numbers of tiles.
        size = len(x_s) // self._stage.accumulate
        return [self._part(x_s[i : i + size], x_t[i : i + size]) for i in range(0, len(x_s), size)]

    def _part(self, x_s: Sequence[Sample], x_t: Sequence[Sample]) -> Part:
        x_t = [self._from_masked(sample) for sample in x_t]
        target = target_batch(self._pair.target, x_t, self._strong)
        tiles = TilePixels.of([tiles_of(self._pair.target, crop) for crop in target.crops])
        return Part(
            source=source_batch(self._pair.source, x_s, self._stage),
            target=target,
            tiles=tiles,
            points=np.stack([self._discs.of_crop(crop) for crop in target.crops]),
        )

    def _from_masked(self, sample: Sample) -> Sample:
        """Return a sample of a masked section in the place of some samples."""
        # Without a draw where there is none, so that runs without masks stay as they are.
        if not self._masked or sample.rng.random() >= self._rounds.mask_share:
            return sample
        return replace(sample, section=self._masked[int(sample.rng.integers(len(self._masked)))])

    def _step(self, batch: Sequence[Part]) -> Mapping[str, float]:
        if int(self._average.updates) % self._rounds.relabel_every_steps == 0:
            self._begin_round()
        labels = [np.stack([self._labels.of_crop(c) for c in p.target.crops]) for p in batch]
        known_s = self._number([part.source.masks != IGNORE for part in batch])
        known_t = Known(
            pixels=self._number([of_part != IGNORE for of_part in labels]),
            labels=self._number([part.tiles.labels != UNKNOWN for part in batch]),
            points=self._number([part.points != IGNORE for part in batch]),
        )
        values = defaultdict[str, list[Tensor]](list)

        def noted(terms: Mapping[str, Tensor], share: float) -> Tensor:
            for name, term in terms.items():
                values[name].append(share * term.detach())
            return share * torch.stack([self._factors[n] * t for n, t in terms.items()]).sum()

        def losses() -> Iterator[Tensor]:
            for part, of_part in zip(batch, labels, strict=True):
                of_source = source_loss(self._student, part.source, self._stage, known_s)
                yield noted({"loss_source": of_source}, 1)
                views = np.moveaxis(part.target.students, 1, 0)  # (V, B, 1, S, S)
                for view in views:
                    terms = self._on_target(view, part, of_part, known_t)
                    yield noted(terms, 1 / len(views))

        self._student.train(self._rounds.statistics == "target")
        update(losses(), self._optimiser)
        self._average.follow(self._student)
        return {name: float(torch.stack(terms).sum()) for name, terms in values.items()}

    def _on_target(
        self,
        view: NDArray[np.float32],
        part: Part,
        labels: NDArray[np.int64],
        known: Known,
    ) -> Mapping[str, Tensor]:
        """Return the losses of a view of the target: of pixel labels, tile labels and points.

        ``known`` counts what is known in the whole batch.
        """
        with autocast(self._device, self._stage.precision):
            logits = self._student(as_input(view, self._device))
        of_pixels = cross_entropy(logits, to_device(labels, self._device), known.pixels)
        terms = {"loss_target": of_pixels}
        if self._factors["loss_presence"] > 0:
            share = self._rounds.presence_share
            terms["loss_presence"] = presence_loss(logits, part.tiles, share, known.labels)
        if "loss_points" in self._factors:
            points = to_device(part.points, self._device)
            terms["loss_points"] = cross_entropy(logits, points, known.points)
        return terms

    def _begin_round(self) -> None:
        """Let the averaged weights label from now on, and the student start anew if asked to."""
        self._labeler.load_state_dict(self._average.network.state_dict())
        self._estimate(self._labeler)
        self._labels.forget()
        if self._rounds.reinitialise_student:
            self._student.load_state_dict(self._source_only.state_dict())
            self._average.restart(self._student)
            self._optimiser.state.clear()

    def _finish(self) -> None:
        """Make the result of the averaged weights, as it is to be scored and kept."""
        self._result.load_state_dict(self._average.network.state_dict())
        self._estimate(self._result)
        if self._rounds.area_at_end and self._rounds.area_power > 0:
            target, crop_px = self._pair.target, self._stage.crop_px
            predicted = predicted_in_tiles(self._result, target, crop_px)
            fold(self._result, class_bias(predicted, self._prior, self._rounds.area_power))

    def _estimate(self, segmenter: UNet) -> None:
        """Estimate the target's statistics, if asked to, and leave ``segmenter`` in eval mode."""
        if self._rounds.statistics == "target":
            # Noise would change them, and the images that are segmented have none.
            clean = self._config.changed({"adaptation": {"augmentation": NO_NOISE}})
            estimate_on_target(segmenter, self._pair.target, clean)
        segmenter.eval()

    def _number(self, known: Sequence[NDArray[np.bool_]]) -> Tensor:
        """Count what is known in all parts of a batch, as (): the mean over the processes."""
        return pixels_of_all(np.concatenate([part.ravel() for part in known]), self._device)
