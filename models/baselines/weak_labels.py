"""Paul et al. (2020), "Domain Adaptive Semantic Segmentation Using Weak Labels".

The method is transplanted to the U-Net and the protocol of StyleFilter's paper. Image-level labels
are given, so their pseudo-labels are left out. Their code (sujoyp/weak-da-seg) decides what their
text leaves open.

Legend: B batch, C classes, S side of the crop, G squares of ``pool_px`` along a side.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.adaptation import SELF_TRAINING, Learner, Pair, adapt_by, source_pass
from models.baselines.adversaries import Crops, Outputs, View, adversaries
from models.baselines.pooling import at_squares, pooled
from models.baselines.regions import Regions, grid_side, labelled_crop, tiles_of
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain
from models.data.labels import UNKNOWN
from models.data.samples import source_batch, target_batch
from models.data.sampling import Sample
from models.data.stylised import StylisedDomain
from models.losses import cross_entropy, smooth_maximum, weak_label_loss
from models.networks.unet import UNet
from models.segmentation import adamw, as_input, pixels_of_all
from models.training.identity import MethodFacts
from models.training.loop import Run, autocast, seeded_weights, to_device, update


def adapt_weak_labels(
    source_only: UNet,
    source: Domain,
    target: StylisedDomain,
    config: StyleFilterConfig,
    run: Run,
) -> UNet:
    """Train a copy of ``source_only`` with CE(x_s, m_s) + weight * BCE(x_t, l_t) + adversaries.

    The adversaries align the domains by class features and by outputs. An alignment of weight 0 has
    no discriminator; without both this is the row "Paul et al. \\ AdvL". The target's images are
    those of ``target``, whatever ``adaptation.student_view`` says. Source and target go through
    the network separately.

    Raises:
        ValueError: a domain has no training sections, or (as NonFiniteLoss) a loss is not finite.
    """
    pair = Pair(source, target)
    learner = WeakLabels(copy.deepcopy(source_only), pair, config).learner()
    return adapt_by(learner, pair, config, run)


Terms = Mapping[str, Tensor]
"""The losses of a part of a batch, by name, not yet weighted."""

Views = Mapping[str, View]
"""The inputs of each adversary, by its name."""


@dataclass(frozen=True)
class Part:
    """A batch, or one of the parts in which a batch is computed.

    ``masks`` (B, S, S) int64 are the source's. ``kept``, bool (B, C, G, G), marks the pooled logits
    of the target that dropout keeps.
    """

    source: Crops
    masks: NDArray[np.int64]
    target: Crops
    kept: NDArray[np.bool_]


class WeakLabels:
    """The segmenter, its adversaries, and the update of all of them."""

    def __init__(self, segmenter: UNet, pair: Pair, config: StyleFilterConfig) -> None:
        self._pair, self._weak = pair, config.weak_labels
        # One view of the images, those of ``target`` as they are given.
        self._config = config.adaptation.model_copy(update={"student_view": "stylised"})
        self.segmenter = segmenter
        self._device = next(segmenter.parameters()).device
        self._optimiser = adamw(segmenter, self._config)
        # Discriminators start from the seed alone, whatever was drawn before.
        with seeded_weights(config.seed):
            self._adversaries = adversaries(segmenter, self._weak, self._config.precision)
        by_name = self._adversaries.items()
        weights = {f"loss_{name}_alignment": adversary.weight for name, adversary in by_name}
        self._factors = {"loss_source": 1.0, "loss_labels": self._weak.weight_labels, **weights}

    def learner(self) -> Learner[Sequence[Part]]:
        by_name = self._adversaries.items()
        settings = {"method": "weak-labels", **self._weak.deciding()}
        return Learner(
            segmenter=self.segmenter,
            facts=MethodFacts(labels=True, settings=settings, unused=SELF_TRAINING),
            batch=self.batch,
            step=self._step,
            optimisers={"segmenter": self._optimiser, **{n: a.optimiser for n, a in by_name}},
            modules={name: adversary.network for name, adversary in by_name},
        )

    def batch(self, x_s: Sequence[Sample], x_t: Sequence[Sample]) -> Sequence[Part]:
        """Return the batch that these samples of source and target make, in its parts."""
        # Samples are divided, not arrays: parts have different numbers of regions.
        size = len(x_s) // self._config.accumulate
        return [self._part(x_s[i : i + size], x_t[i : i + size]) for i in range(0, len(x_s), size)]

    def _part(self, x_s: Sequence[Sample], x_t: Sequence[Sample]) -> Part:
        source, target, pool = self._pair.source, self._pair.target, self._weak.pool_px
        batch_s = source_batch(source, x_s, self._config)
        batch_t = target_batch(target, x_t, self._config)
        tiles = [tiles_of(target, crop) for crop in batch_t.crops]
        whole = [labelled_crop(mask, source.num_classes) for mask in batch_s.masks]
        side = grid_side(self._config.crop_px, pool)
        shape = (target.num_classes, side, side)
        return Part(
            source=Crops(batch_s.images, batch_s.inside, Regions.of(whole, pool)),
            masks=batch_s.masks,
            target=Crops(batch_t.students[:, 0], batch_t.inside, Regions.of(tiles, pool)),
            kept=np.stack([s.rng.random(shape) >= self._weak.dropout for s in x_t]),
        )

    def _step(self, batch: Sequence[Part]) -> Mapping[str, float]:
        known = pixels_of_all(np.stack([part.masks != IGNORE for part in batch]), self._device)
        labels = np.concatenate([part.target.regions.labels for part in batch])
        num_labels = pixels_of_all(labels != UNKNOWN, self._device)
        weights_s = self._weights([part.source for part in batch])
        weights_t = self._weights([part.target for part in batch])
        values = defaultdict[str, list[Tensor]](list)
        views = defaultdict[str, list[View]](list)

        # The discriminators learn from these views afterwards, without a second pass.
        def noted(terms: Terms, seen: Views) -> Tensor:
            for name, term in terms.items():
                values[name].append(term.detach())
            for name, view in seen.items():
                views[name].append(view.detached())
            return torch.stack([self._factors[name] * term for name, term in terms.items()]).sum()

        def losses() -> Iterator[Tensor]:
            for part, of_s, of_t in zip(batch, weights_s, weights_t, strict=True):
                yield noted(*self._on_source(part, known, of_s))
                yield noted(*self._on_target(part, num_labels, of_t))

        self.segmenter.train()
        with frozen(adversary.network for adversary in self._adversaries.values()):
            update(losses(), self._optimiser, clip_norm=self._weak.clip_norm)
        learnt = {
            f"loss_{name}_discriminator": adversary.learn(views[name])
            for name, adversary in self._adversaries.items()
        }
        return {name: float(torch.stack(terms).sum()) for name, terms in values.items()} | learnt

    def _weights(self, crops: Sequence[Crops]) -> list[dict[str, Tensor]]:
        """Weigh each adversary's scores, for each part of a batch of one domain."""
        of_all = {name: a.weights(crops) for name, a in self._adversaries.items()}
        return [{name: parts[i] for name, parts in of_all.items()} for i in range(len(crops))]

    def _on_source(
        self, part: Part, num_known: Tensor, weights: Mapping[str, Tensor]
    ) -> tuple[Terms, Views]:
        """Return CE(x_s, m_s), and views of the source, which teach the discriminators alone."""
        with source_pass(self.segmenter, self._config):
            outputs = self.outputs(part.source)
        masks = to_device(part.masks, self._device)
        with torch.no_grad():
            views = self._views(outputs, part.source, weights, target=False)
        return {"loss_source": cross_entropy(outputs.logits, masks, num_known)}, views

    def _on_target(
        self, part: Part, num_labels: Tensor, weights: Mapping[str, Tensor]
    ) -> tuple[Terms, Views]:
        """Return BCE(x_t, l_t), the losses of passing for the source, and views of the target."""
        outputs = self.outputs(part.target)
        views = self._views(outputs, part.target, weights, target=True)
        terms = {"loss_labels": self._label_loss(outputs.logits, part, num_labels)}
        for name, view in views.items():
            terms[f"loss_{name}_alignment"] = self._adversaries[name].fooled(view)
        return terms, views

    def outputs(self, crops: Crops) -> Outputs:
        """Run the segmenter: logits, and the features that the discriminators see."""
        with autocast(self._device, self._config.precision):
            encoded = self.segmenter.encode(as_input(crops.images, self._device))
            decoded = self.segmenter.decode(encoded)
            logits = self.segmenter.head(decoded)
        return Outputs(logits, encoded[-1] if self._weak.feature == "bottleneck" else decoded)

    def _views(
        self, outputs: Outputs, crops: Crops, weights: Mapping[str, Tensor], *, target: bool
    ) -> Views:
        return {
            name: View(adversary.see(outputs, crops), weights[name], target)
            for name, adversary in self._adversaries.items()
        }

    def _label_loss(self, logits: Tensor, part: Part, num_labels: Tensor) -> Tensor:
        """Return BCE(x_t, l_t) of the regions' smooth maxima."""
        weak, regions = self._weak, part.target.regions
        kept = at_squares(to_device(part.kept, self._device), regions, weak.pool_px)
        # Divided by the share that is kept, so that the mean logit stays.
        dropped = pooled(logits, regions) * kept / (1 - weak.dropout)
        sizes, labels = (to_device(x, self._device) for x in (regions.sizes, regions.labels))
        return weak_label_loss(smooth_maximum(dropped, sizes, weak.smoothness), labels, num_labels)


@contextmanager
def frozen(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Let gradients inside pass through the networks and leave none in them."""
    networks = list(networks)
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)
