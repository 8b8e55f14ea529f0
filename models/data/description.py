"""The description that an owner gives of images and masks: classes, pixel size, tiles, splits."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from models.data.readers.stack import ReadOptions
from models.data.splits import SectionLists

CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""The characters that PostgreSQL or UTF-8 cannot store, that break lines, that command a terminal,
or that reorder the text around them."""


def _without_control(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("holds a control character, such as a line break: remove it")
    return text


Text = Annotated[str, AfterValidator(_without_control)]
ClassName = Annotated[Text, Field(min_length=1, max_length=100)]
GroupName = ClassName
Grey = Annotated[float, Field(ge=-1e6, le=1e6)]


class Description(BaseModel):
    """The facts by which the images and masks of a domain are read.

    Unknown fields and values out of range are errors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_names: list[ClassName] = Field(
        min_length=2,
        max_length=255,  # masks are stored as uint8, where 255 is an ignored pixel
        description="The names of the classes. The first has the id 0 in masks, the second 1, and "
        "so on.",
    )
    pixel_size_nm: float = Field(
        ge=1e-3, le=1e6, description="The width of a pixel on the sample, in nanometres."
    )
    ignore_value: int = Field(
        255,
        ge=0,
        le=65535,
        description="The mask value of pixels without a class. They take no part in training and "
        "scores.",
    )
    tile_px: int | None = Field(
        None,
        ge=16,
        le=65536,
        description="The side of a tile, in pixels. Sections are divided into tiles, and each tile "
        "has labels of its own. Without this field each section has one set of labels.",
    )
    intensity_window: tuple[Grey, Grey] | None = Field(
        None,
        description="The grey values that become 0 (black) and 1 (white). Without this field they "
        "are the 0.5 and 99.5 percentiles of all pixels of all sections, so that source and target "
        "do not differ by brightness and contrast alone. Pixels of validation and test sections "
        "count too, though not their masks; name a window if that must not be.",
    )
    splits: SectionLists | None = Field(
        None,
        description="The names of the sections of each split. A section has the name of its file "
        "without suffix; in a stack its number follows, as in `stack/0003`. Without this field, 60 "
        "% of the sections of a dataset with masks train, 20 % validate and 20 % test: whole "
        "groups if there are groups, else blocks of neighbouring sections with an unused section "
        "between them. All sections train if there are no masks, fewer than three groups, or fewer "
        "than five sections without groups.",
    )
    reading: ReadOptions = Field(
        default_factory=ReadOptions,
        description="What to read of files that hold more than one stack of sections: the channel, "
        "the axis, the range of sections, the level, the array.",
    )
    groups: dict[GroupName, Annotated[list[str], Field(min_length=1)]] | None = Field(
        None,
        description="The names of the sections of each group. A group holds sections that were cut "
        "from one volume or recording and look alike, so they are never divided between training "
        "and test. Each section is in one group.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError("class_names holds a name twice: give each class a name of its own")
        if self.ignore_value < len(self.class_names):
            raise ValueError(
                f"ignore_value {self.ignore_value} is also the id of a class: ids are 0 to "
                f"{len(self.class_names) - 1}"
            )
        if self.intensity_window and not self.intensity_window[0] < self.intensity_window[1]:
            low, high = self.intensity_window
            raise ValueError(
                f"intensity_window is [{low:g}, {high:g}]: its first value must be the smaller one"
            )
        return self
