"""Typed, frozen configuration of every stage; free of torch.

The same classes check an HTTP request, fill the JSON column of a job and the ``config.json`` beside
the weights. Defaults are the paper's numbers (``preset("paper")``); where the paper is silent the
field says so with [A] (assumption). Unknown keys and values out of range are errors.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models.frozen_config import FrozenConfig, Replaces

PresetName = Literal["smoke", "quick", "paper"]
Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "bf16"]
MAX_STEPS, MAX_EPOCHS = 10**8, 10**5
"""A stage counts its steps in 32 bits."""

NormName = Literal["batch", "group", "instance"]


class StepConfig(FrozenConfig):
    """Training steps: how large a batch is, and how it is computed."""

    batch_size: int = Field(1, ge=1, le=64, description="Images per step.")
    precision: Precision = Field(
        "float32",
        description="Number format of convolutions and matrix products; norms and losses are "
        "always float32. bf16 needs a GPU, or a processor with bfloat16 instructions.",
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of equal parts in which a batch is computed, one after the other: the "
        "same gradient (except for batch norm) in less memory. It has to divide the batch size.",
    )

    @model_validator(mode="after")
    def _has_equal_parts(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}"
            )
        return self


class StyleConfig(StepConfig):
    """CUT (Park et al. 2020), target -> source. Paper: "we use CUT [7]", its authors' defaults."""

    base_filters: int = Field(64, ge=4, le=256, description="Filters of the first convolution.")
    num_blocks: int = Field(9, ge=5, le=9, description="Residual blocks; the taps need five.")
    crop_px: int = Field(256, ge=32, le=1024, multiple_of=4, description="Training crop, pixels.")
    steps: Annotated[int | None, Replaces("epochs_constant", "epochs_decay")] = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description="Length in steps; replaces the epochs: half constant, half decay.",
    )
    epochs_constant: int = Field(
        200, ge=0, le=MAX_EPOCHS, description="Epochs at the full learning rate."
    )
    epochs_decay: int = Field(
        200, ge=0, le=MAX_EPOCHS, description="Epochs of linear decay to zero."
    )
    batch_size: int = Field(1, ge=1, le=16, description="Target-source pairs per step.")
    learning_rate: float = Field(2e-4, gt=0, le=1e-1, description="Adam, betas (0.5, 0.999).")
    num_patches: int = Field(256, ge=2, le=4096, description="PatchNCE positions per tap.")
    projector_width: int = Field(256, ge=4, le=1024, description="Units of the patch projector.")
    temperature: float = Field(0.07, gt=0, le=10, description="PatchNCE temperature.")
    lambda_gan: float = Field(1.0, ge=0, le=100, description="Weight of the adversarial loss.")
    lambda_nce: float = Field(1.0, ge=0, le=100, description="Weight of PatchNCE (FastCUT: 10).")
    select_on: Literal["last", "target_val", "labels"] = Field(
        "last",
        description="Which generator is kept. CUT's losses do not say when it serves the segmenter "
        "best. target_val: the one through which the source-only segmenter has the best DICE on "
        "the target's validation masks, as the protocol chooses weights; labels: the one with "
        "which its predictions agree best with the training images' labels, confidence added, for "
        "which no mask is needed; last: that of the last step.",
    )
    validate_every_steps: int = Field(
        250, ge=1, description="Steps between those that are scored, unless the last is kept."
    )
    nce_identity: bool = Field(True, description="PatchNCE on source images too (FastCUT: no).")
    flip_equivariance: bool = Field(False, description="Random flips of G's input (FastCUT: yes).")

    @model_validator(mode="after")
    def _has_length(self) -> Self:
        if self.steps is None and self.epochs_constant + self.epochs_decay == 0:
            raise ValueError("style training has no length: set steps or epochs")
        return self


class SegmenterConfig(FrozenConfig):
    """U-Net (Ronneberger et al. 2015): ``depth`` poolings, filters doubling at each."""

    base_filters: int = Field(64, ge=4, le=128, description="Filters of the first stage.")
    depth: int = Field(4, ge=1, le=5, description="Number of 2x2 poolings.")
    norm: NormName = Field("batch", description="Normalisation after each convolution.")

    @property
    def min_px(self) -> int:
        """Least side of an image: norms need more than one pixel at the bottom."""
        return 2 << self.depth


class AugmentationConfig(FrozenConfig):
    """Paper: rotation by multiples of 90 degrees, Gaussian noise, colour jitter; strengths [A]."""

    rotate: bool = Field(True, description="Rotate by a random multiple of 90 degrees.")
    brightness: float = Field(0.2, ge=0, le=1, description="Largest shift of the [0, 1] image.")
    contrast: float = Field(0.2, ge=0, le=1, description="Largest relative change of contrast.")
    noise_sigma: float = Field(0.05, ge=0, le=1, description="Gaussian noise on the [0, 1] image.")


class PretrainConfig(StepConfig):
    """Supervised training on the source (Eq. 1), and what adaptation shares with it."""

    crop_px: int = Field(
        500, ge=32, le=2048, description="Crop side, pixels; smaller images are padded, ignored."
    )
    steps: Annotated[int | None, Replaces("epochs")] = Field(
        None, ge=1, le=MAX_STEPS, description="Length in steps; replaces the epochs."
    )
    epochs: int = Field(
        100, ge=1, le=MAX_EPOCHS, description="Passes over the source's training sections."
    )
    batch_size: int = Field(2, ge=1, le=64, description="Source images per step [A].")
    learning_rate: float = Field(1e-4, gt=0, le=1e-1, description="AdamW, constant.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW.")
    validate_every_epochs: float = Field(5.0, gt=0, description="Validation interval, epochs.")
    validate_every_steps: Annotated[int | None, Replaces("validate_every_epochs")] = Field(
        None, ge=1, description="Validation interval in steps; replaces the epochs."
    )
    augmentation: AugmentationConfig = AugmentationConfig()


class AdaptationConfig(PretrainConfig):
    """StyleFilter's third step. ``batch_size`` counts the images of each domain (paper: 1 + 1)."""

    batch_size: int = Field(1, ge=1, le=64, description="Images per step from each domain.")
    label_filter: bool = Field(
        True, description="Filter pseudo-labels by image-level labels: Eq. 3; off is Eq. 2."
    )
    student_view: Literal["stylised", "raw", "both"] = Field(
        "stylised",
        description="Target image the student sees. The printed loss says raw; the paper's results "
        "(StyleFilter without CUT at test time fails) say stylised. both: half the loss of each.",
    )
    pseudo_labeler: Literal["current", "frozen", "ema"] = Field(
        "current",
        description="Who labels the target: the weights being trained (Eq. 2 and 3 have one "
        "theta_seg), the source-only ones, or an exponential moving average (mean teacher). Those "
        "that learn their own labels may lose a rare class altogether.",
    )
    ema_decay: float = Field(
        0.99, ge=0, lt=1, description="Share of the old average kept per step; for ema only."
    )
    norm_statistics: Literal["target", "both"] = Field(
        "target",
        description="Whose images batch norm's stored statistics describe. target: those the "
        "network will segment, stylised target crops, estimated anew before each validation, and "
        "pseudo-labels of weights that change are made with their batch's own. both: a running "
        "mean over both domains' batches, for pseudo-labels too. The paper is silent.",
    )
    select_on: Literal["target_val", "source_val", "last"] = Field(
        "target_val",
        description="Which validation masks choose the weights. target_val is the paper's protocol "
        "and needs masks that image-level labels are to replace; the others need none.",
    )
    start_eligible: bool = Field(
        False,
        description="Whether the source-only weights that adaptation starts from are among those "
        "it chooses from. The paper is silent, but its Y-Net row ends below source-only, which a "
        "choice with them would hardly allow.",
    )
    epoch_by: Literal["source", "target", "max"] = Field(
        "source",
        description="Which domain's training sections one epoch passes over; the paper is silent, "
        "and the other domain is drawn in step, over and over.",
    )


class YNetConfig(FrozenConfig):
    """Y-Net (Roels et al. 2019), beside ``adaptation``'s lengths and choices."""

    weight_reconstruction: float = Field(
        1e-3, ge=0, le=1e3, description="Weight of the mean squared error of the reconstruction."
    )
    reconstruct: Literal["target", "both"] = Field(
        "both",
        description="Domains whose images are reconstructed. StyleFilter's paper says target, "
        "Y-Net's own code does both.",
    )


class WeakLabelsConfig(FrozenConfig):
    """Paul et al. (2020), beside ``adaptation``'s lengths and choices; their code's numbers."""

    weight_labels: float = Field(
        0.2, ge=0, le=100, description="Weight of the image-level classification loss."
    )
    smoothness: float = Field(
        1.0, ge=0.01, le=100, description="k of the smooth maximum: low is the mean, high the max."
    )
    pool_px: int = Field(
        8, ge=1, le=64, description="Logits and features are averaged over squares of this side."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Of the logits before the smooth maximum.")
    weight_class_alignment: float = Field(
        1e-3, ge=0, le=100, description="Weight of the class-wise adversarial loss; 0: without."
    )
    weight_output_alignment: float = Field(
        1e-3,
        ge=0,
        le=100,
        description="Weight of the output-space adversarial loss; 0: without. Their code has it, "
        "their paper's ablation names the class-wise one only.",
    )
    feature: Literal["decoder", "bottleneck"] = Field(
        "decoder",
        description="Features aligned by class: the decoder's last, or the bottleneck [A]; theirs "
        "are the last of a network without a decoder.",
    )
    learning_rate: float = Field(
        1e-4, gt=0, le=1e-1, description="Of the discriminators: Adam, betas (0.9, 0.99)."
    )
    discriminator_filters: int = Field(
        64, ge=4, le=256, description="First filters of the output's discriminator; then doubled."
    )
    clip_norm: float = Field(
        1.0, gt=0, le=1e3, description="Largest norm of the segmenter's gradient."
    )


class StyleFilterConfig(FrozenConfig):
    """A whole adaptation: style transfer, pre-training, adaptation with filtered pseudo-labels."""

    style: StyleConfig = StyleConfig()
    segmenter: SegmenterConfig = SegmenterConfig()
    pretrain: PretrainConfig = PretrainConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    ynet: YNetConfig = YNetConfig()
    weak_labels: WeakLabelsConfig = WeakLabelsConfig()
    fourier_beta: float = Field(
        0.01,
        gt=0,
        le=0.5,
        description="Fourier domain adaptation (Yang and Soatto 2020): half side of the square of "
        "low frequencies that is exchanged, as a share of the image's shorter side.",
    )
    pixel_size_factor: float = Field(
        1.0,
        ge=0.25,
        le=16,
        description="Working pixel size as a multiple of the source's; both domains are resampled "
        "to it. 1: the source's own.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of every random stream.")
    device: Device = Field("cpu", description="Where to train; a missing device is a refusal.")

    def working_nm(self, source_nm: float) -> float:
        """Return the working pixel size in nanometres, of a source of ``source_nm`` per pixel."""
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

    ``paper`` is every number of the paper; ``quick`` shrinks filters (16), blocks (6), crops (96
    and 128 px), lengths and resolution (pixels twice as large), for a laptop CPU, learns faster,
    labels by the source-only weights, and keeps these where so short an adaptation finds none
    better; ``smoke`` shrinks all to seconds and shows only that the path works.
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
