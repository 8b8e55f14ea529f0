"""The configuration of a whole adaptation; free of torch.

The same class checks an HTTP request, fills the JSON column of a job and the ``config.json`` beside
the weights. Its defaults are the paper's numbers. Unknown keys and values out of range are errors.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models.config.base import FrozenConfig, Option
from models.config.baselines import WeakLabelsConfig, YNetConfig
from models.config.choice import ChoiceConfig
from models.config.rounds import RoundsConfig
from models.config.stages import (
    AdaptationConfig,
    Device,
    PretrainConfig,
    SegmenterConfig,
    StyleConfig,
)

AdaptBy = Literal["stylefilter", "chosen"]
"""A way to adapt: the method of the paper, or the candidate that the target's labels choose."""


class StyleFilterConfig(FrozenConfig):
    """A whole adaptation: style transfer, pre-training, adaptation with filtered pseudo-labels."""

    method: Annotated[AdaptBy, Option()] = Field(
        "stylefilter",
        description="The way to adapt. `stylefilter` is the method of the paper. `chosen` tries "
        "changes of the grey values, batch-norm statistics and self-training in rounds, and the "
        "target's labels choose one of them; the source-only segmenter stays unless another is "
        "better by more than chance. Only a whole adaptation reads this field: a job for one stage "
        "trains that stage, and the rows of a benchmark name their methods.",
    )
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
    rounds: RoundsConfig = Field(
        RoundsConfig(),
        description="The settings of self-training in rounds, which the paper does not have.",
    )
    choice: ChoiceConfig = Field(
        ChoiceConfig(), description="The choice among candidates by the target's labels."
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
