"""Typed, frozen configuration of every stage; free of torch.

The same classes check an HTTP request, fill the JSON column of a job and the ``config.json`` beside
the weights. Defaults are the paper's numbers (``preset("paper")``); [A] marks an assumption where
the paper gives no number. Unknown keys and values out of range are errors.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models.augmentation_config import AugmentationConfig
from models.baseline_config import WeakLabelsConfig, YNetConfig
from models.frozen_config import FrozenConfig, Replaces

PresetName = Literal["smoke", "quick", "paper"]
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


class PretrainConfig(StepConfig):
    """The supervised training of the segmenter on the source (Eq. 1)."""

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
    learning_rate: float = Field(
        1e-4, gt=0, le=1e-1, description="The learning rate of AdamW, which stays constant."
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


class AdaptationConfig(PretrainConfig):
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


class StyleFilterConfig(FrozenConfig):
    """A whole adaptation: style transfer, pre-training, adaptation with filtered pseudo-labels."""

    style: StyleConfig = Field(
        StyleConfig(),
        description="Style transfer: CUT learns to redraw the target in the source's style.",
    )
    segmenter: SegmenterConfig = Field(
        SegmenterConfig(), description="The architecture of the network that segments, a U-Net."
    )
    pretrain: PretrainConfig = Field(
        PretrainConfig(), description="The training of the segmenter on the source alone."
    )
    adaptation: AdaptationConfig = Field(
        AdaptationConfig(), description="The training on source and target with pseudo-labels."
    )
    ynet: YNetConfig = Field(
        YNetConfig(), description="The settings of Y-Net, a method of another paper."
    )
    weak_labels: WeakLabelsConfig = Field(
        WeakLabelsConfig(), description="The settings of the method of Paul et al., another paper."
    )
    fourier_beta: float = Field(
        0.01,
        gt=0,
        le=0.5,
        description="The size of the square of low frequencies that Fourier domain adaptation "
        "(Yang and Soatto 2020) exchanges: half the side of the square, as a share of the image's "
        "shorter side.",
    )
    pixel_size_factor: float = Field(
        1.0,
        ge=0.25,
        le=16,
        description="The working pixel size, at which the networks see all images, as a multiple "
        "of the source's pixel size. Source and target are resampled to it.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="The seed of all random numbers.")
    device: Device = Field(
        "cpu", description="The device to train on. A job whose device is missing fails."
    )

    def working_nm(self, source_nm: float) -> float:
        """Return the working pixel size, in nanometres, for a source of ``source_nm`` per pixel."""
        return source_nm * self.pixel_size_factor

    @model_validator(mode="after")
    def _crops_fit_segmenter(self) -> Self:
        least = self.segmenter.min_px
        for name, stage in (("pretrain", self.pretrain), ("adaptation", self.adaptation)):
            if stage.crop_px < least:
                raise ValueError(
                    f"{name}.crop_px is {stage.crop_px}, and with segmenter.depth "
                    f"{self.segmenter.depth} a crop needs at least {least} px: enlarge the crop or "
                    "reduce the depth"
                )
        return self


def preset(name: PresetName) -> StyleFilterConfig:
    """Return a named configuration.

    ``paper`` has every number of the paper. ``quick`` is for the CPU of a laptop: it has fewer
    filters and blocks, smaller crops, fewer steps, higher learning rates, and pixels twice as
    large. The weights of the source alone make its pseudo-labels, and are kept if the short
    adaptation finds none better. ``smoke`` takes seconds, and shows only that everything runs.
    """
    if name == "paper":
        return StyleFilterConfig()
    if name == "quick":
        return StyleFilterConfig(
            style=StyleConfig(
                base_filters=16, num_blocks=6, crop_px=96, steps=1000, learning_rate=4e-4
            ),
            segmenter=SegmenterConfig(base_filters=16),
            pretrain=PretrainConfig(
                crop_px=128, steps=600, batch_size=4, learning_rate=1e-3, validate_every_steps=100
            ),
            adaptation=AdaptationConfig(
                crop_px=128,
                steps=150,
                batch_size=4,
                learning_rate=2e-4,
                validate_every_steps=50,
                pseudo_labeler="frozen",
                start_eligible=True,
            ),
            weak_labels=WeakLabelsConfig(discriminator_filters=16, learning_rate=1e-3),
            pixel_size_factor=2.0,  # so that a small crop still shows whole organelles
        )
    return StyleFilterConfig(
        style=StyleConfig(
            base_filters=4, num_blocks=5, crop_px=32, steps=4, num_patches=16, projector_width=16
        ),
        segmenter=SegmenterConfig(base_filters=4, depth=2),
        pretrain=PretrainConfig(crop_px=32, steps=6, learning_rate=1e-3, validate_every_steps=3),
        adaptation=AdaptationConfig(
            crop_px=32, steps=6, learning_rate=1e-3, validate_every_steps=3
        ),
        weak_labels=WeakLabelsConfig(discriminator_filters=4),
    )
