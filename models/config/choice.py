"""Configuration of the choice among candidates (``choice/search.py``); free of torch."""

from typing import Annotated, Literal

from pydantic import Field

from models.config.base import FrozenConfig, Option

ViewName = Literal["raw", "inverted", "stretched", "histogram", "inverted_histogram"]
"""A way to change the grey values of a target image before it is segmented; see ``VIEWS``."""

LEAST_PIXEL_FACTOR, MOST_PIXEL_FACTOR = 0.5, 2.0
PixelFactor = Annotated[float, Field(ge=LEAST_PIXEL_FACTOR, le=MOST_PIXEL_FACTOR)]


class ChoiceConfig(FrozenConfig):
    """The candidates among which the target's labels choose. Source-only is always one of them."""

    views: Annotated[tuple[ViewName, ...], Option()] = Field(
        ("inverted", "stretched", "histogram"),
        max_length=5,
        description="The changes of grey values that are tried beside the image as it is: "
        "`inverted`, `stretched` (contrast), `histogram` (the source's grey values) and "
        "`inverted_histogram` (both, one after the other).",
    )
    pixel_factors: Annotated[tuple[PixelFactor, ...], Option()] = Field(
        (),
        max_length=4,
        description="The factors of the working pixel size that are tried with the best two views: "
        "with 0.8 the network sees the target larger, with 1.25 smaller. This helps where "
        "organelles of the target have another size than those of the source.",
    )
    target_statistics: bool = Field(
        True,
        description="`true` tries batch norm's statistics of the target beside those of the "
        "source. They help on some pairs and destroy a class on others; the labels tell.",
    )
    max_trained: int = Field(
        3,
        ge=0,
        le=3,
        description="The most candidates that are trained in rounds, each for the steps of "
        "`adaptation`: with half of the correction of area, without it, and with the whole. The "
        "number counts work and not minutes, so that a run that was stopped ends with the same "
        "choice.",
    )
    held_back: float = Field(
        0.25,
        gt=0,
        le=0.5,
        description="The share of the labelled tiles that training does not see, by which trained "
        "candidates are compared with others: labels flatter what was trained on them.",
    )
    hold_back_from_tiles: int = Field(
        120,
        ge=20,
        description="The number of labelled tiles from which some are held back. Of fewer, "
        "training needs all; then the verdict says that it was trained on the labels.",
    )
