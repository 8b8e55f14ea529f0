"""Configs of the methods of other papers; free of torch.

Their number of steps and their choice of weights come from ``adaptation``.
"""

from typing import Literal

from pydantic import Field

from models.frozen_config import FrozenConfig


class YNetConfig(FrozenConfig):
    """Y-Net (Roels et al. 2019): a second decoder reconstructs images of both domains."""

    weight_reconstruction: float = Field(
        1e-3,
        ge=0,
        le=1e3,
        description="The weight of the reconstruction's mean squared error.",
    )
    reconstruct: Literal["target", "both"] = Field(
        "both",
        description="The domains whose images are reconstructed. StyleFilter's paper says target; "
        "Y-Net's own code reconstructs both.",
    )


class WeakLabelsConfig(FrozenConfig):
    """Paul et al. (2020): image-level labels train a classifier. The numbers are their code's.

    [A] marks an assumption where neither their code nor the paper gives a number.
    """

    weight_labels: float = Field(
        0.2, ge=0, le=100, description="The weight of the loss that classifies whole images."
    )
    smoothness: float = Field(
        1.0,
        ge=0.01,
        le=100,
        description="The constant k of the smooth maximum: a low one is near the mean, a high one "
        "near the maximum.",
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
        description="The weight of the adversarial loss on predictions; 0 leaves it out. Their "
        "code has this loss; the experiments of their paper name only the one on classes.",
    )
    feature: Literal["decoder", "bottleneck"] = Field(
        "decoder",
        description="The features of each class: those of the decoder's last layer, or of the "
        "bottleneck. Their network has no decoder, and they take its last features.",
    )  # [A]
    learning_rate: float = Field(
        1e-4,
        gt=0,
        le=1e-1,
        description="The learning rate of Adam for the discriminators; betas are (0.9, 0.99).",
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
