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
    """A dataset to register: its metadata, and a folder unless its files are uploaded."""

    model_config = ConfigDict(json_schema_extra={"examples": [DATASET_EXAMPLE]})

    name: Text = Field(min_length=1, max_length=200)
    folder: str | None = Field(
        None,
        description="A folder under an allowed data root, with `images` and maybe `masks`: PNG or "
        "TIFF files of equal names, or `images.zarr` and `masks.zarr` of shape (N, H, W).",
    )


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

    model_config = ConfigDict(from_attributes=True)

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
