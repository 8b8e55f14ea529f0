"""Typed, frozen configuration of every stage; free of torch.

The same classes check an HTTP request, fill the JSON column of a job and the ``config.json`` beside
the weights. Defaults are the paper's numbers (``preset("paper")``); [A] marks an assumption where
the paper gives no number. Unknown keys and values out of range are errors.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

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
        "always float32. bf16 needs a GPU, or a processor with bfloat16 instructions.",
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=64,
        description="The number of equal parts in which a batch is computed, one after the other. "
        "The gradient is the same (except for batch norm) and needs less memory. The number has to "
        "divide the batch size.",
    )

    @model_validator(mode="after")
    def _has_equal_parts(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}"
            )
        return self


class StyleConfig(StepConfig):
    """CUT (Park et al. 2020), from target to source, with the defaults of its authors."""

    base_filters: int = Field(
        64, ge=4, le=256, description="The number of filters of the generator's first convolution."
    )
    num_blocks: int = Field(
        9, ge=5, le=9, description="The number of residual blocks of the generator."
    )
    crop_px: int = Field(
        256, ge=32, le=1024, multiple_of=4, description="The side of a training crop, in pixels."
    )
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
        1.0, ge=0, le=100, description="The weight of PatchNCE; FastCUT has 10."
    )
    select_on: Literal["last", "target_val", "labels"] = Field(
        "last",
        description="The rule that chooses the generator to keep, because CUT's losses do not say "
        "which one serves the segmenter best. last keeps that of the last step. target_val keeps "
        "the one through which the segmenter of the source alone has the best DICE on the "
        "validation masks of the target. labels keeps the one through which the segmenter's "
        "predictions agree best with the labels of the training images, and needs no mask.",
    )
    validate_every_steps: int = Field(
        250, ge=1, description="The number of steps from one scored generator to the next."
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
            raise ValueError("style training has no length: set steps or epochs")
        return self


class SegmenterConfig(FrozenConfig):
    """The size of the U-Net (Ronneberger et al. 2015)."""

    base_filters: int = Field(
        64, ge=4, le=128, description="The number of filters at full resolution; it doubles below."
    )
    depth: int = Field(4, ge=1, le=5, description="The number of 2 x 2 poolings.")
    norm: NormName = Field("batch", description="The normalisation after each convolution.")

    @property
    def min_px(self) -> int:
        """The shortest side of an image, in pixels: norms need two after the last pooling."""
        return 2 << self.depth


class AugmentationConfig(FrozenConfig):
    """Random changes of training images. The paper names them, but not their strengths [A]."""

    rotate: bool = Field(
        True, description="`true` rotates each crop by a random multiple of 90 degrees."
    )
    brightness: float = Field(
        0.2, ge=0, le=1, description="The largest shift of grey values, which lie in [0, 1]."
    )
    contrast: float = Field(
        0.2, ge=0, le=1, description="The largest change of contrast, as a share of it."
    )
    noise_sigma: float = Field(
        0.05, ge=0, le=1, description="The standard deviation of Gaussian noise on grey values."
    )


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
        description="The number of epochs, which are passes over the training sections.",
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
        description="`true` removes classes from pseudo-labels that the labels of an image exclude "
        "(Eq. 3 of the paper); `false` does not (Eq. 2).",
    )
    student_view: Literal["stylised", "raw", "both"] = Field(
        "stylised",
        description="The target images that the trained network sees: rendered in the source's "
        "style, raw, or both with half the loss each. The paper's formula says raw; its results "
        "say stylised, since StyleFilter fails there without CUT at test time.",
    )
    pseudo_labeler: Literal["current", "frozen", "ema"] = Field(
        "current",
        description="The weights that make the pseudo-labels: current are those being trained (Eq. "
        "2 and 3 of the paper), frozen those of the source alone, ema an exponential moving "
        "average. Weights that learn from their own pseudo-labels may lose a rare class.",
    )
    ema_decay: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="The share of the old average that each step keeps; it counts for ema only.",
    )
    norm_statistics: Literal["target", "both"] = Field(
        "target",
        description="The images that batch norm's stored statistics describe. target: stylised "
        "target crops, as the network will segment them; they are estimated anew before each "
        "validation, and weights that change make pseudo-labels with the statistics of the batch. "
        "both: a running mean over the batches of both domains, for pseudo-labels too. The paper "
        "does not say.",
    )
    select_on: Literal["target_val", "source_val", "last"] = Field(
        "target_val",
        description="The validation masks that choose the weights. target_val is the paper's way. "
        "It needs masks of the target, which labels are to replace; the other ways need none.",
    )
    start_eligible: bool = Field(
        False,
        description="`true` lets the choice fall on the weights of the source alone, with which "
        "adaptation starts. The paper does not say. Its Y-Net scores less than these weights, "
        "which speaks for `false`.",
    )
    epoch_by: Literal["source", "target", "max"] = Field(
        "source",
        description="The domain whose training sections one epoch passes over; max is the larger "
        "one. Images of the other domain are drawn again and again. The paper does not say.",
    )


class StyleFilterConfig(FrozenConfig):
    """A whole adaptation: style transfer, pre-training, adaptation with filtered pseudo-labels."""

    style: StyleConfig = Field(
        StyleConfig(), description="Style transfer: CUT renders the target in the source's style."
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
    ynet: YNetConfig = Field(YNetConfig(), description="The other paper's method Y-Net.")
    weak_labels: WeakLabelsConfig = Field(
        WeakLabelsConfig(), description="The other paper's method of Paul et al."
    )
    fourier_beta: float = Field(
        0.01,
        gt=0,
        le=0.5,
        description="Fourier domain adaptation (Yang and Soatto 2020) exchanges a square of low "
        "frequencies. This is half the side of the square, as a share of the image's shorter "
        "side.",
    )
    pixel_size_factor: float = Field(
        1.0,
        ge=0.25,
        le=16,
        description="The pixel size at which networks work, as a multiple of the source's. Images "
        "of both domains are resampled to it.",
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
                    f"segmenter.depth {self.segmenter.depth} needs crops of at least {least} px, "
                    f"{name}.crop_px is {stage.crop_px}"
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
            pixel_size_factor=2.0,
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
