"""Configurations of the stages of StyleFilter; free of torch.

Defaults are the paper's numbers. [A] marks an assumption where the paper gives no number.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models.config.augmentation import AugmentationConfig
from models.config.base import FrozenConfig, Option, Replaces

Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "bf16"]
MAX_STEPS, MAX_EPOCHS = 10**8, 10**5
"""The most steps and epochs of a stage: the service counts steps in 32 bits."""

NormName = Literal["batch", "group", "instance"]


class StepConfig(FrozenConfig):
    """The size of a batch, and the way in which a step computes it."""

    batch_size: int = Field(1, ge=1, le=64, description="The number of images in a training step.")
    precision: Precision = Field(
        "float32",
        description="The number format of convolutions and matrix products; norms and losses are "
        "always float32. `bf16` needs a GPU, or a processor with bfloat16 instructions.",
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=64,
        description="The number of equal parts in which a batch is computed, one after the other. "
        "More parts need less memory. The gradient stays the same, except that batch norm sees the "
        "parts one by one. The number has to divide the batch size.",
    )

    @model_validator(mode="after")
    def _has_equal_parts(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}: use a "
                "divisor"
            )
        return self


class StyleConfig(StepConfig):
    """The training of CUT (Park et al. 2020), with the defaults of its authors."""

    base_filters: int = Field(
        64, ge=4, le=256, description="The number of filters of the generator's first convolution."
    )
    num_blocks: int = Field(
        9, ge=5, le=9, description="The number of residual blocks of the generator."
    )  # at least five, because PatchNCE compares features of the fifth
    crop_px: int = Field(
        256, ge=32, le=1024, multiple_of=4, description="The side of a training crop, in pixels."
    )  # a multiple of 4, because the generator halves an image twice
    steps: Annotated[int | None, Replaces("epochs_constant", "epochs_decay")] = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description="The number of steps, half of them at the full learning rate and half with "
        "decay. It replaces both numbers of epochs.",
    )
    epochs_constant: int = Field(
        200, ge=0, le=MAX_EPOCHS, description="The number of epochs at the full learning rate."
    )
    epochs_decay: int = Field(
        200,
        ge=0,
        le=MAX_EPOCHS,
        description="The number of epochs in which the learning rate falls evenly to zero.",
    )
    batch_size: int = Field(
        1, ge=1, le=16, description="The number of pairs of a target and a source image in a step."
    )
    learning_rate: float = Field(
        2e-4, gt=0, le=1e-1, description="The learning rate of Adam, whose betas are (0.5, 0.999)."
    )
    num_patches: int = Field(
        256,
        ge=2,
        le=4096,
        description="The number of positions at which PatchNCE, CUT's contrastive loss, compares "
        "features of each layer.",
    )
    projector_width: int = Field(
        256, ge=4, le=1024, description="The number of units of the network that projects patches."
    )
    temperature: float = Field(0.07, gt=0, le=10, description="The temperature of PatchNCE.")
    lambda_gan: float = Field(1.0, ge=0, le=100, description="The weight of the adversarial loss.")
    lambda_nce: float = Field(
        1.0,
        ge=0,
        le=100,
        description="The weight of PatchNCE. FastCUT, a faster variant of CUT, has 10.",
    )
    select_on: Literal["last", "target_val", "labels"] = Field(
        "last",
        description="The rule that chooses the generator to keep. CUT's losses do not say which "
        "generator serves the segmenter best. `last` keeps the generator of the last step. The "
        "other rules let the segmenter of the source alone segment images that each generator has "
        "stylised: `target_val` keeps the generator with the best DICE on the target's validation "
        "masks, and `labels` the one whose segmentations agree best with the labels of the "
        "training images. Only `target_val` needs masks of the target.",
    )
    validate_every_steps: int = Field(
        250,
        ge=1,
        description="The number of steps from one scored generator to the next. It has no effect "
        "if `select_on` is `last`.",
    )
    nce_identity: bool = Field(
        True, description="`true` computes PatchNCE on source images too; FastCUT does not."
    )
    flip_equivariance: bool = Field(
        False, description="`true` flips the generator's input at random, as FastCUT does."
    )

    @model_validator(mode="after")
    def _has_length(self) -> Self:
        if self.steps is None and self.epochs_constant + self.epochs_decay == 0:
            raise ValueError(
                "style training has no length: set style.steps, style.epochs_constant or "
                "style.epochs_decay"
            )
        return self


class SegmenterConfig(FrozenConfig):
    """The size of the U-Net (Ronneberger et al. 2015)."""

    base_filters: int = Field(
        64,
        ge=4,
        le=128,
        description="The number of filters at full resolution; it doubles with each pooling.",
    )
    depth: int = Field(4, ge=1, le=5, description="The number of 2 x 2 poolings.")
    norm: NormName = Field("batch", description="The normalisation after each convolution.")

    @property
    def min_px(self) -> int:
        """The shortest side of an image, in pixels: norms need two after the last pooling."""
        return 2 << self.depth


class SegmenterTrainingConfig(StepConfig):
    """The numbers that every training of the segmenter has."""

    crop_px: int = Field(
        500,
        ge=32,
        le=2048,
        description="The side of a training crop, in pixels. Smaller images are padded, and the "
        "padding is ignored.",
    )
    steps: Annotated[int | None, Replaces("epochs")] = Field(
        None, ge=1, le=MAX_STEPS, description="The number of steps; it replaces the epochs."
    )
    epochs: int = Field(
        100,
        ge=1,
        le=MAX_EPOCHS,
        description="The number of epochs. One epoch passes over all training sections once.",
    )
    batch_size: int = Field(
        2, ge=1, le=64, description="The number of source images in a step."
    )  # [A]
    learning_rate: float = Field(1e-4, gt=0, le=1e-1, description="The learning rate of AdamW.")
    learning_rate_decay: Annotated[Literal["none", "linear"], Option()] = Field(
        "none",
        description="The learning rate over the steps: `none` keeps it constant, as in the paper; "
        "with `linear` it is constant in the first half of the steps, and falls evenly to zero in "
        "the second.",
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="The weight decay of AdamW.")
    validate_every_epochs: float = Field(
        5.0, gt=0, description="The number of epochs from one validation to the next."
    )
    validate_every_steps: Annotated[int | None, Replaces("validate_every_epochs")] = Field(
        None,
        ge=1,
        description="The number of steps from one validation to the next; it replaces the epochs.",
    )
    augmentation: AugmentationConfig = Field(
        AugmentationConfig(), description="Random changes of training images."
    )


class PretrainConfig(SegmenterTrainingConfig):
    """The supervised training of the segmenter on the source (Eq. 1)."""

    dice_weight: Annotated[float, Option()] = Field(
        0.0,
        ge=0,
        le=100,
        description="The weight of a loss beside the cross-entropy: 1 - soft DICE of the batch, in "
        "the mean over the rare classes, which are all but the most frequent one in the training "
        "masks. The paper has no such loss.",
    )


class AdaptationConfig(SegmenterTrainingConfig):
    """StyleFilter's third step: training on source and target."""

    batch_size: int = Field(
        1, ge=1, le=64, description="The number of images of each domain in a step."
    )
    label_filter: bool = Field(
        True,
        description="`true` never lets a pseudo-label take a class that the labels of its image "
        "call absent (Equation 3 of the paper); `false` lets it (Equation 2).",
    )
    student_view: Literal["stylised", "raw", "both"] = Field(
        "stylised",
        description="The target images that the trained network sees: `stylised` (redrawn in the "
        "source's style), `raw`, or `both` with half the loss each. The paper's formula has raw "
        "images. Its results speak for stylised ones: its StyleFilter fails if test images are not "
        "stylised.",
    )
    pseudo_labeler: Literal["current", "frozen", "ema"] = Field(
        "current",
        description="The weights that make the pseudo-labels: `current` are the weights being "
        "trained (Equations 2 and 3 of the paper), `frozen` the weights trained on the source "
        "alone, `ema` an exponential moving average of the current weights. Weights that learn "
        "from their own pseudo-labels may lose a rare class.",
    )
    ema_decay: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="The share of the old average that each step keeps. Only `ema` uses it.",
    )
    norm_statistics: Literal["target", "both"] = Field(
        "target",
        description="The images from which batch norm takes its statistics. `target`: before each "
        "validation they are estimated from crops of stylised target images, which the network "
        "will segment. While the network trains, pseudo-labels of `current` and `ema` weights use "
        "the statistics of their own batch. `both`: they are a running mean over the batches of "
        "both domains, also for pseudo-labels. The paper does not say which it uses.",
    )
    select_on: Literal["target_val", "source_val", "last"] = Field(
        "target_val",
        description="The rule that chooses the weights to keep: those with the best DICE on the "
        "validation masks of the target (`target_val`, as in the paper) or of the source "
        "(`source_val`), or those of the last step (`last`). Only `target_val` needs masks of the "
        "target, which a user with labels alone does not have.",
    )
    start_eligible: bool = Field(
        False,
        description="`true` lets `select_on` also keep the weights before the first step, trained "
        "on the source alone. The paper does not say whether it allowed that. Its Y-Net scores "
        "below source-only, which speaks for `false`.",
    )
    epoch_by: Literal["source", "target", "max"] = Field(
        "source",
        description="The domain whose training sections one epoch passes over once; `max` is the "
        "domain with more sections. Images of the other domain are drawn again and again. The "
        "paper does not name the domain.",
    )
