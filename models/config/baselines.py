"""Configurations of the methods of other papers; free of torch.

These methods take the number of their steps and the choice of their weights from ``adaptation``.
[A] marks an assumption, where neither the authors' code nor their paper gives a number.
"""

from typing import Literal

from pydantic import Field

from models.config.base import FrozenConfig


class YNetConfig(FrozenConfig):
    """Y-Net (Roels et al. 2019), a segmenter with a second decoder that reconstructs its input."""

    weight_reconstruction: float = Field(
        1e-3,
        ge=0,
        le=1e3,
        description="The weight of the reconstruction's mean squared error.",
    )
    reconstruct: Literal["target", "both"] = Field(
        "both",
        description="The domains whose images are reconstructed: only the `target`, as "
        "StyleFilter's paper says, or `both`, as the code of Y-Net's authors does.",
    )


class WeakLabelsConfig(FrozenConfig):
    """The method of Paul et al. (2020): image-level labels train a classifier of whole images.

    The defaults are the numbers in the code of its authors.
    """

    weight_labels: float = Field(
        0.2, ge=0, le=100, description="The weight of the loss that classifies whole images."
    )
    smoothness: float = Field(
        1.0,
        ge=0.01,
        le=100,
        description="The constant k of the smooth maximum. With a low k it is near the mean, with "
        "a high k near the maximum.",
    )
    pool_px: int = Field(
        8,
        ge=1,
        le=64,
        description="The side of the squares over which logits and features are averaged, in "
        "pixels.",
    )
    dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="The share of logits dropped before the smooth maximum.",
    )
    weight_class_alignment: float = Field(
        1e-3,
        ge=0,
        le=100,
        description="The weight of the adversarial loss on the features of each class; 0 leaves it "
        "out.",
    )
    weight_output_alignment: float = Field(
        1e-3,
        ge=0,
        le=100,
        description="The weight of the adversarial loss on predictions; 0 leaves it out. The "
        "authors' code has this loss, but the experiments in their paper name only the loss on the "
        "features of each class.",
    )
    feature: Literal["decoder", "bottleneck"] = Field(
        "decoder",
        description="The layer that gives the features of each class: the last layer of the "
        "decoder, or the bottleneck. The authors' network has no decoder, and they take its last "
        "layer.",
    )  # [A]
    learning_rate: float = Field(
        1e-4,
        gt=0,
        le=1e-1,
        description="The learning rate of Adam for the discriminators, whose betas are "
        "(0.9, 0.99).",
    )
    discriminator_filters: int = Field(
        64,
        ge=4,
        le=256,
        description="The number of filters of the first layer of the discriminator of predictions; "
        "it doubles with each layer.",
    )
    clip_norm: float = Field(
        1.0, gt=0, le=1e3, description="The largest norm of the segmenter's gradient."
    )
