"""Y-Net (Roels et al. 2019): the segmenter's encoder must also serve to reconstruct the images.

The method is transplanted to the U-Net and the protocol of StyleFilter's paper: its authors' own
network is narrower and learns from scratch. Their code (JorisRoels/domain-adaptive-segmentation)
decides what their text leaves open.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.adaptation import SELF_TRAINING, Learner, Pair, adapt_by, source_pass
from models.baselines.reconstruction import ReconstructionDecoder
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain
from models.data.samples import (
    SourceBatch,
    TargetBatch,
    parts,
    source_batch,
    target_batch,
)
from models.data.sampling import Sample
from models.data.stylised import StylisedDomain
from models.losses import cross_entropy, reconstruction_error
from models.networks.unet import UNet
from models.segmentation import adamw, as_input, pixels_of_all
from models.training.identity import MethodFacts
from models.training.loop import Run, autocast, seeded_weights, to_device, update

Batch = tuple[SourceBatch, TargetBatch]


def adapt_ynet(
    source_only: UNet,
    source: Domain,
    target: StylisedDomain,
    config: StyleFilterConfig,
    run: Run,
) -> UNet:
    """Train a copy of ``source_only`` with CE(x_s, m_s) + weight * (MSE(x_s) + MSE(x_t)).

    ``ynet.reconstruct`` may leave MSE(x_s) out. The target's images are those of ``target``,
    whatever ``adaptation.student_view`` says; for Table 1's row they are raw. Source and target go
    through the network separately. The second decoder starts from scratch and is thrown away.

    Raises:
        ValueError: a domain has no training sections, or (as NonFiniteLoss) a loss is not finite.
    """
    pair = Pair(source, target)
    learner = _YNet(copy.deepcopy(source_only), pair, config).learner()
    return adapt_by(learner, pair, config, run)


class _YNet:
    """The encoder, its two decoders, and their update."""

    def __init__(self, segmenter: UNet, pair: Pair, config: StyleFilterConfig) -> None:
        self._pair, self._ynet = pair, config.ynet
        # One view of the images, those of ``target`` as they are given.
        self._config = config.adaptation.model_copy(update={"student_view": "stylised"})
        self._segmenter = segmenter
        self._device = next(segmenter.parameters()).device
        with seeded_weights(config.seed):
            self._decoder = ReconstructionDecoder(config.segmenter).to(self._device)
        self._optimiser = adamw(segmenter, self._config)
        self._optimiser.add_param_group({"params": list(self._decoder.parameters())})

    def learner(self) -> Learner[Batch]:
        settings = {"method": "y-net", **self._ynet.deciding()}
        return Learner(
            segmenter=self._segmenter,
            facts=MethodFacts(labels=False, settings=settings, unused=SELF_TRAINING),
            batch=self._batch,
            step=self._step,
            optimisers={"segmenter": self._optimiser},
            modules={"reconstruction": self._decoder},
        )

    def _batch(self, x_s: Sequence[Sample], x_t: Sequence[Sample]) -> Batch:
        source, target = self._pair.source, self._pair.target
        return source_batch(source, x_s, self._config), target_batch(target, x_t, self._config)

    def _step(self, batch: Batch) -> Mapping[str, float]:
        source, target = batch
        number, weight = self._config.accumulate, self._ynet.weight_reconstruction
        known = pixels_of_all(source.masks != IGNORE, self._device)
        insides = source.inside, target.inside
        num_s, num_t = (pixels_of_all(inside, self._device) for inside in insides)
        x_s, x_t = parts(source, number), parts(target, number)
        self._segmenter.train()
        self._decoder.train()
        values = defaultdict[str, list[Tensor]](list)

        def weighted(terms: Mapping[str, Tensor]) -> Tensor:
            for name, term in terms.items():
                values[name].append(term.detach())
            scaled = [t if name == "loss_source" else weight * t for name, t in terms.items()]
            return torch.stack(scaled).sum()

        def losses() -> Iterator[Tensor]:
            for source_part, target_part in zip(x_s, x_t, strict=True):
                yield weighted(self._on_source(source_part, known, num_s))
                yield weighted(self._on_target(target_part, num_t))

        update(losses(), self._optimiser)
        return {name: float(torch.stack(terms).sum()) for name, terms in values.items()}

    def _on_source(
        self, batch: SourceBatch, num_known: Tensor, num_inside: Tensor
    ) -> dict[str, Tensor]:
        """Return CE(x_s, m_s) and MSE(x_s) of one pass through the encoder."""
        kept = source_pass(self._segmenter, self._config)
        with kept, autocast(self._device, self._config.precision):
            features = self._segmenter.encode(as_input(batch.images, self._device))
            logits = self._segmenter.head(self._segmenter.decode(features))
        masks = to_device(batch.masks, self._device)
        terms = {"loss_source": cross_entropy(logits, masks, num_known)}
        if self._ynet.reconstruct == "both":
            error = self._error(features[-1], batch.images, batch.inside, num_inside)
            terms["loss_reconstruction_source"] = error
        return terms

    def _on_target(self, batch: TargetBatch, num_inside: Tensor) -> dict[str, Tensor]:
        """Return MSE(x_t)."""
        images = batch.students[:, 0]
        with autocast(self._device, self._config.precision):
            features = self._segmenter.encode(as_input(images, self._device))
            if self._config.norm_statistics == "both":
                with torch.no_grad():
                    self._segmenter.decode(features)  # for the statistics of its norms
        error = self._error(features[-1], images, batch.inside, num_inside)
        return {"loss_reconstruction_target": error}

    def _error(
        self,
        code: Tensor,
        images: NDArray[np.float32],
        inside: NDArray[np.bool_],
        num_inside: Tensor,
    ) -> Tensor:
        """Return the error of reconstructing ``images``, noise included, as their code does."""
        with autocast(self._device, self._config.precision):
            reconstructed = self._decoder(code, *images.shape[-2:])
        wanted, pixels = to_device(images, self._device), to_device(inside, self._device)
        return reconstruction_error(reconstructed, wanted, pixels, num_inside)
