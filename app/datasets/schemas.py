"""What the datasets routes take and give."""

import re
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from models.data.domain import Split
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

DATASET_EXAMPLE: dict[str, JsonValue] = {
    "name": "HeLa, FIB-SEM",
    "class_names": ["cytosol", "membrane", "mitochondrion"],
    "pixel_size_nm": 4.0,
    "tile_px": 128,
    "folder": "hela",
}


class DatasetCreate(BaseModel):
    """A dataset to register: its metadata, and a folder unless its files are uploaded."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [DATASET_EXAMPLE]})

    name: Text = Field(min_length=1, max_length=200)
    class_names: list[ClassName] = Field(
        min_length=2, max_length=255, description="Ordered: class id 0, 1, ..."
    )
    pixel_size_nm: float = Field(ge=1e-3, le=1e6)
    ignore_value: int = Field(255, ge=0, le=65535, description="Mask value without a class.")
    tile_px: int | None = Field(
        None, ge=16, le=65536, description="Cut sections into tiles; each has its own labels."
    )
    intensity_window: tuple[Grey, Grey] | None = Field(
        None,
        description="Grey values that become 0 and 1. Default: the 0.5 and 99.5 percentiles of the "
        "pixels of all sections, so that contrast and brightness alone are no gap between domains. "
        "Those of validation and test count too (no labels do): name a window where that matters.",
    )
    splits: SectionLists | None = Field(
        None,
        description="Section names (file names without suffix; stacks: name/0000) of each split. "
        "Default: with masks 60/20/20 %, no group in two of them, or without groups contiguous "
        "blocks with a gap; without masks, or with less than three groups, all train.",
    )
    groups: dict[GroupName, Annotated[list[str], Field(min_length=1)]] | None = Field(
        None,
        description="Section names of each group, if sections come from several volumes or crops: "
        "cross-validation keeps a group together. Each section is in one.",
    )
    folder: str | None = Field(
        None,
        description="A folder under an allowed data root, with `images` and maybe `masks`: PNG or "
        "TIFF files of equal names, or `images.zarr` and `masks.zarr` of shape (N, H, W).",
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


class DatasetRead(BaseModel):
    """A registered dataset; it never changes."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    class_names: list[str]
    pixel_size_nm: float
    tile_px: int | None
    dtype: str = Field(examples=["uint8"])
    intensity_window: tuple[float, float]
    num_sections: int
    num_masks: int
    num_images: int = Field(description="Images with labels of their own: tiles, or sections.")
    num_bytes: int
    digest: str = Field(description="SHA-256 of pixels, masks and metadata.")
    created_at: datetime


class SectionRead(BaseModel):
    """One micrograph of a dataset."""

    name: str
    split: Split
    height: int
    width: int
    has_mask: bool
    group: str | None = Field(None, description="The volume or crop it comes from, if named.")


class DatasetReport(DatasetRead):
    """A dataset with its sections and what registration found in the masks."""

    sections: list[SectionRead]
    class_pixels: dict[str, int] = Field(description="Masked pixels of each class.")


class ImageRead(BaseModel):
    """One image: number, group, window in its section, pixels."""

    n: int
    section: str = Field(description="Its section: the group of all its tiles.")
    split: Split
    y0: int
    x0: int
    height: int
    width: int
    class_pixels: dict[str, int] | None = Field(description="None without a mask.")
