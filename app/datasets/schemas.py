"""What the datasets routes take and give."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from models.data.description import Description, Text
from models.data.sections import Split

DATASET_EXAMPLE: dict[str, JsonValue] = {
    "name": "HeLa, FIB-SEM",
    "class_names": ["cytosol", "membrane", "mitochondrion"],
    "pixel_size_nm": 4.0,
    "tile_px": 128,
    "folder": "hela",
}


class DatasetCreate(Description):
    """A dataset to register: what its images and masks mean, and where they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [DATASET_EXAMPLE]})

    name: Text = Field(min_length=1, max_length=200, description="A name for people.")
    folder: str | None = Field(
        None,
        description="A folder on the service's machine, below one that its operator allows. It "
        "holds `images` and maybe `masks` with PNG or TIFF files of equal names, or `images.zarr` "
        "and `masks.zarr` of shape (N, H, W). An upload has no folder.",
    )


class DatasetRead(BaseModel):
    """A registered dataset; it never changes."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(description="The id of the dataset.")
    name: str = Field(description="The name of the dataset.")
    class_names: list[str] = Field(
        description="The names of the classes; the first one has the id 0 in masks."
    )
    pixel_size_nm: float = Field(description="The side of a pixel, in nanometres.")
    tile_px: int | None = Field(
        description="The side of the tiles that sections are cut into, in pixels, if they are."
    )
    dtype: str = Field(description="The type of the images' grey values.", examples=["uint8"])
    intensity_window: tuple[float, float] = Field(
        description="The grey values that networks see as 0 and as 1."
    )
    num_sections: int = Field(description="The number of sections.")
    num_masks: int = Field(description="The number of sections that have a mask.")
    num_images: int = Field(
        description="The number of images with labels of their own: of tiles, or else of sections."
    )
    num_bytes: int = Field(description="The bytes that the dataset takes on disk.")
    digest: str = Field(
        description="SHA-256 of pixels, masks and metadata: equal for equal datasets."
    )
    created_at: datetime = Field(description="The time of registration.")


class SectionRead(BaseModel):
    """One section of a dataset, an image as the microscope made it."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="The name of the section, from its file.")
    split: Split = Field(description="What the section is for.")
    height: int = Field(description="The height in pixels.")
    width: int = Field(description="The width in pixels.")
    has_mask: bool = Field(description="`true` if the section has a mask.")
    group: str | None = Field(
        None, description="The volume or crop that the section was cut from, if it was named."
    )


class DatasetReport(DatasetRead):
    """A dataset with its sections and what registration found in the masks."""

    sections: list[SectionRead] = Field(description="All sections, in their order.")
    class_pixels: dict[str, int] = Field(
        description="The number of pixels of each class in all masks."
    )


class ImageRead(BaseModel):
    """One image that has labels: a tile, or a whole section."""

    n: int = Field(description="The number of the image, from 0.")
    section: str = Field(description="The name of the section that the image is of.")
    split: Split = Field(description="What the section is for.")
    y0: int = Field(description="The row of the section at which the image begins.")
    x0: int = Field(description="The column of the section at which the image begins.")
    height: int = Field(description="The height in pixels.")
    width: int = Field(description="The width in pixels.")
    class_pixels: dict[str, int] | None = Field(
        description="The number of pixels of each class in its mask; none without a mask."
    )
