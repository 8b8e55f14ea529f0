"""What an owner says of images and masks: classes, pixel size, tiles, splits."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from models.data.splits import SectionLists

CONTROL = re.compile("[\\x00-\\x1f\\ud800-\\udfff]")
"""Characters that PostgreSQL or UTF-8 cannot store, or that break lines."""


def _without_control(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("holds a control character")
    return text


Text = Annotated[str, AfterValidator(_without_control)]
ClassName = Annotated[Text, Field(min_length=1, max_length=100)]
GroupName = ClassName
Grey = Annotated[float, Field(ge=-1e6, le=1e6)]


class Description(BaseModel):
    """What images and masks mean. Unknown fields and values out of range are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_names: list[ClassName] = Field(
        min_length=2,
        max_length=255,
        description="The names of the classes, in the order of their ids in masks: 0, 1, ...",
    )
    pixel_size_nm: float = Field(ge=1e-3, le=1e6, description="The side of a pixel, in nanometres.")
    ignore_value: int = Field(
        255,
        ge=0,
        le=65535,
        description="The value of mask pixels that have no class: nothing is learnt of them.",
    )
    tile_px: int | None = Field(
        None,
        ge=16,
        le=65536,
        description="The side of tiles, in pixels, that sections are cut into; each tile has "
        "labels of its own. Without this field each section has labels.",
    )
    intensity_window: tuple[Grey, Grey] | None = Field(
        None,
        description="The grey values that networks see as 0 and as 1. Without this field they are "
        "the 0.5 and 99.5 percentiles of the pixels of all sections, so that contrast and "
        "brightness alone are no gap between domains. Sections of validation and test count too "
        "(their labels do not): name a window where that matters.",
    )
    splits: SectionLists | None = Field(
        None,
        description="The names of the sections of each split. The name of a section is that of its "
        "file without suffix; in a stack it is name/0000, name/0001, ... Without this field a "
        "dataset with masks is divided 60/20/20 %: by groups, each in one split, or else into "
        "blocks of neighbouring sections with a gap between them. Without masks, or with less than "
        "three groups, all sections are for training.",
    )
    groups: dict[GroupName, Annotated[list[str], Field(min_length=1)]] | None = Field(
        None,
        description="The names of the sections of each group, if sections come from several "
        "volumes or crops. Each section is in one group, and a group is never divided.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError("class_names holds a name twice")
        if self.ignore_value < len(self.class_names):
            raise ValueError(f"ignore_value {self.ignore_value} is also the id of a class")
        if self.intensity_window and not self.intensity_window[0] < self.intensity_window[1]:
            raise ValueError("intensity_window must be (low, high) with low < high")
        return self
