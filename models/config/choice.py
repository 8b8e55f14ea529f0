"""Configuration of the choice among candidates (``choice/search.py``); free of torch."""

from typing import Annotated, Literal

from pydantic import Field

from models.config.base import FrozenConfig, Option
from models.config.stages import MAX_STEPS

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
    ensemble: Annotated[int, Option()] = Field(
        1,
        ge=1,
        le=3,
        description="The most candidates whose mean probability is tried, of those that the labels "
        "cannot tell from the best one; 1 tries no mean. If the mean has a loss that is lower by "
        "0.02 or more, one network learns from it (`student_steps`).",
    )
    style_from_loss: Annotated[float | None, Option()] = Field(
        None,
        ge=0,
        description="CUT is trained and tried if no other candidate has a loss below this number: "
        "0 always tries it, and none never does. Its training takes `style.steps`, often longer "
        "than all other candidates. If CUT is better by 0.02 or more, one network learns from it.",
    )
    student_steps: Annotated[int, Option()] = Field(
        450,
        ge=1,
        le=MAX_STEPS,
        description="The number of steps by which one network learns to segment as the mean of "
        "several candidates does, or CUT and the segmenter behind it. It begins as the best single "
        "candidate, and takes one pass where its teacher takes several.",
    )
    retrain: Annotated[bool, Option()] = Field(
        False,
        description="`true` trains a chosen candidate once more, on all labels, if some were kept "
        "back from it. That takes as long as its first training, and nothing judges the result.",
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
