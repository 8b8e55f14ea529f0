"""Paul et al.'s adversaries: discriminators that learn to tell the target from the source.

The segmenter learns to fool them, so that it treats both domains alike.

Legend: B batch, C classes, D width of a feature, S side of the crop, R labelled regions.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.baselines.class_discriminators import ClassDiscriminators, OutputDiscriminator
from models.baselines.pooling import at_squares, pooled
from models.baselines.regions import Regions
from models.config.baselines import WeakLabelsConfig
from models.config.stages import Precision
from models.data.labels import PRESENT
from models.losses import class_features, domain_loss, full_precision, some
from models.networks.unet import UNet
from models.training.loop import autocast, to_device, update
from models.training.parallel import mean_count

_BETAS = (0.9, 0.99)  # of Adam, as in their code


@dataclass(frozen=True)
class Crops:
    """Crops of one domain: images (B, 1, S, S) float32 in [0, 1], and their labelled regions.

    ``inside``, bool (B, S, S), is False in padding.
    """

    images: NDArray[np.float32]
    inside: NDArray[np.bool_]
    regions: Regions


@dataclass(frozen=True)
class Outputs:
    """The segmenter's outputs for crops: logits (B, C, S, S), features (B, D, h, w)."""

    logits: Tensor
    features: Tensor


@dataclass(frozen=True)
class View:
    """An adversary's inputs from one domain, and the weight of each of its scores.

    ``weights`` has the shape of the scores; ``target`` tells which domain it is.
    """

    inputs: Tensor
    weights: Tensor
    target: bool

    def detached(self) -> Self:
        return replace(self, inputs=self.inputs.detach())


class Adversary(ABC):
    """A discriminator, high for the target; the segmenter learns to fool it, by ``weight``."""

    weight: float

    def __init__(self, network: nn.Module, config: WeakLabelsConfig, precision: Precision) -> None:
        self.network, self._precision = network, precision
        self._device = next(network.parameters()).device
        self.optimiser = torch.optim.Adam(
            network.parameters(), lr=config.learning_rate, betas=_BETAS
        )

    @abstractmethod
    def see(self, outputs: Outputs, crops: Crops) -> Tensor:
        """Return the discriminator's input, which is made of the segmenter's outputs."""

    @abstractmethod
    def _weigh(self, crops: Crops) -> Tensor:
        """Return the weight of each score of a part, up to a factor that all parts share."""

    def weights(self, crops: Sequence[Crops]) -> list[Tensor]:
        """Return the weights of the scores of each part of a batch.

        All weights of a batch together sum to 1, in the mean over the processes.
        """
        weights = [self._weigh(part) for part in crops]
        total = some(mean_count(torch.stack([each.sum() for each in weights]).sum()))
        return [each / total for each in weights]

    def fooled(self, view: View) -> Tensor:
        """Return the segmenter's loss (): low where the target passes for the source."""
        return self._loss(view, target=False)

    def learn(self, views: Sequence[View]) -> float:
        """Update the discriminator once, and return its loss.

        The right answer is 0 for the source and 1 for the target; each domain counts half.
        """
        losses = (self._loss(view, target=view.target) / 2 for view in views)
        return sum(update(losses, self.optimiser))

    def _loss(self, view: View, *, target: bool) -> Tensor:
        with autocast(self._device, self._precision):
            scores = self.network(view.inputs)
        return domain_loss(scores, view.weights, target=target)


class ClassAdversary(Adversary):
    """An adversary that sees the feature (D) of each class in each region.

    Only present classes count: the loss is the mean over a region's present classes, then over the
    regions that have any.
    """

    def __init__(self, segmenter: UNet, config: WeakLabelsConfig, precision: Precision) -> None:
        self.weight = config.weight_class_alignment
        coarse = config.feature == "bottleneck"
        # The U-Net's filters double where its maps are halved.
        self._stride = 2 ** len(segmenter.downs) if coarse else 1
        width = self._stride * segmenter.head.in_channels
        network = ClassDiscriminators(segmenter.num_classes, width)
        super().__init__(network.to(device_of(segmenter)), config, precision)

    def see(self, outputs: Outputs, crops: Crops) -> Tensor:
        """Return class features (R, C, D); no gradient passes through their pixels' weights."""
        at, features = crops.regions, outputs.features
        coarse = self._stride > 1
        features = at_squares(features, at, self._stride) if coarse else pooled(features, at)
        sizes = to_device(at.sizes, self._device)
        return class_features(features, pooled(outputs.logits.detach(), at), sizes)

    def _weigh(self, crops: Crops) -> Tensor:
        present = to_device(crops.regions.labels == PRESENT, self._device).float()
        return present / some(present.sum(1, keepdim=True))


class OutputAdversary(Adversary):
    """An adversary that sees softmax maps (B, C, S, S), which are 0 in padding.

    Scores that judge nothing but padding do not count.
    """

    def __init__(self, segmenter: UNet, config: WeakLabelsConfig, precision: Precision) -> None:
        self.weight = config.weight_output_alignment
        network = OutputDiscriminator(segmenter.num_classes, config.discriminator_filters)
        super().__init__(network.to(device_of(segmenter)), config, precision)

    def see(self, outputs: Outputs, crops: Crops) -> Tensor:
        """Return softmax maps (B, C, S, S), 0 in padding."""
        inside = to_device(crops.inside, self._device)
        return full_precision(outputs.logits).softmax(1) * inside[:, None]

    def _weigh(self, crops: Crops) -> Tensor:
        return OutputDiscriminator.judged(to_device(crops.inside, self._device)).float()


def adversaries(
    segmenter: UNet, config: WeakLabelsConfig, precision: Precision
) -> dict[str, Adversary]:
    """Return the adversaries whose weight is not 0, by the name of what they align."""
    made = dict[str, Adversary]()
    if config.weight_class_alignment:
        made["class"] = ClassAdversary(segmenter, config, precision)
    if config.weight_output_alignment:
        made["output"] = OutputAdversary(segmenter, config, precision)
    return made


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
