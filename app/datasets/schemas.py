"""Schemas of the requests and answers about datasets."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from models.data.description import Description, Text
from models.data.openorganelle.source import OpenOrganelleSource
from models.data.sections import Split
from models.data.splits import SectionLists

DATASET_EXAMPLE: dict[str, JsonValue] = {
    "name": "HeLa, FIB-SEM",
    "class_names": ["cytosol", "membrane", "mitochondrion"],
    "pixel_size_nm": 4.0,
    "tile_px": 128,
    "folder": "hela",
}


CELL_EXAMPLE: dict[str, JsonValue] = {
    "kind": "openorganelle",
    "name": "HELA-2",
    "cell": "jrc_hela-2",
    "crops": ["crop1", "crop3", "crop4"],
}


class SentUploads(BaseModel):
    """The uploads that a dataset is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: list[UUID] = Field(
        min_length=1, max_length=10_000, description="The ids of the uploads of images."
    )
    masks: list[UUID] = Field(
        [],
        max_length=10_000,
        description="The ids of the uploads of masks, each with the file name of its image.",
    )


class DatasetCreate(Description):
    """Describes a dataset to register, and names its folder unless its files are uploaded."""

    model_config = ConfigDict(json_schema_extra={"examples": [DATASET_EXAMPLE]})

    name: Text = Field(
        min_length=1, max_length=200, description="A name for people; two datasets may share it."
    )
    folder: str | None = Field(
        None,
        max_length=4096,
        description="The path of a folder, relative to a data root of the service. The folder "
        "holds the folders `images` and, if there are masks, `masks`, with files of any format "
        "that is read. A mask has the file name of its image, perhaps with an ending such as "
        "`_mask`. Or the folder holds `images.zarr` and `masks.zarr`. Other usual names, such as "
        "`raw` and `labels`, are understood too.",
    )
    uploads: SentUploads | None = Field(
        None,
        description="The files to register, if they were sent by `POST /uploads` before. They are "
        "removed when the dataset is registered, or a job has taken them.",
    )


class OpenOrganelleCreate(OpenOrganelleSource):
    """Describes a dataset to register: annotated crops of a public cell.

    Classes, pixel size and groups come from the crops.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [CELL_EXAMPLE]})

    kind: Literal["openorganelle"] = Field(description="The kind of source.")
    name: Text = Field(
        min_length=1, max_length=200, description="A name for people; two datasets may share it."
    )
    tile_px: int | None = Field(
        None, ge=16, le=65536, description="The side of a tile, as in `DatasetCreate`."
    )
    splits: SectionLists | None = Field(
        None,
        description="The names of the sections of each split, such as `crop1/0003`. Without this "
        "field, whole crops are divided.",
    )

    def described(self, told: Description) -> DatasetCreate:
        """Return the dataset of crops that ``told`` describes, by the wishes of this request."""
        wishes = {"name": self.name, "tile_px": self.tile_px, "splits": self.splits}
        return DatasetCreate.model_validate(dict(told) | wishes)


class DatasetRead(BaseModel):
    """A registered dataset. It never changes."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(description="The id of the dataset.")
    name: str = Field(description="The name that was given at registration.")
    version: int = Field(description="The number of the version, from 1.")
    previous: UUID | None = Field(
        description="The id of the version before; none for a dataset that was registered by "
        "itself."
    )
    class_names: list[str] = Field(description="The names of the classes; their ids count from 0.")
    pixel_size_nm: float = Field(description="The width of a pixel, in nanometres.")
    tile_px: int | None = Field(
        description="The side of a tile, in pixels; none if each section is one image."
    )
    dtype: str = Field(description="The type of a grey value.", examples=["uint8"])
    intensity_window: tuple[float, float] = Field(
        description="The grey values that become 0 (black) and 1 (white)."
    )
    num_sections: int = Field(description="The number of sections, which are whole micrographs.")
    num_masks: int = Field(description="The number of sections that have a mask.")
    num_images: int = Field(
        description="The number of images that can be labelled: tiles or, without tiles, sections."
    )
    num_bytes: int = Field(description="The bytes of all images and masks before compression.")
    digest: str = Field(description="The SHA-256 of all pixels, masks and metadata.")
    pixels_digest: str | None = Field(
        description="The SHA-256 of the images' pixels alone, in their order: the same images in "
        "other files, or described otherwise, have the same one. None for a dataset that an "
        "earlier version registered."
    )
    pixel_size_from: str = Field(
        description="Says who gave the pixel size: `request` or `file`.", examples=["request"]
    )
    created_at: datetime = Field(description="The time when the dataset was registered.")


class SectionRead(BaseModel):
    """A section: one whole micrograph of a dataset."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(
        description="The name of its file without suffix. If the file holds several sections, its "
        "number follows, as in `stack/0003`."
    )
    split: Split = Field(
        description="The role of the section: networks learn from `train`, `val` chooses the "
        "weights to keep, `test` is only scored, `unused` takes no part."
    )
    height: int = Field(description="The height of the section, in pixels.")
    width: int = Field(description="The width of the section, in pixels.")
    has_mask: bool = Field(description="`true` if the section has a mask.")
    group: str | None = Field(
        None, description="The volume or recording that the section was cut from, if it was named."
    )
    pixel_size_nm: tuple[float, float] | None = Field(
        None,
        description="The height and the width of a pixel, in nanometres, if they are not those of "
        "the dataset.",
    )
    intensity_window: tuple[float, float] | None = Field(
        None,
        description="The grey values that become 0 and 1, if they are not those of the dataset.",
    )


class NoteRead(BaseModel):
    """A fact that the owner of a dataset has to know: something was left out, or looks wrong."""

    model_config = ConfigDict(from_attributes=True)

    where: str = Field(
        description="The file or section, or the field of the request, that the note is about."
    )
    code: str = Field(description="One word for programs.", examples=["reader"])
    message: str = Field(description="What was found, and what to do.")


class DatasetReport(DatasetRead):
    """A dataset with its sections and notes, and with the pixels of each class in its masks."""

    sections: list[SectionRead] = Field(description="The sections in their order.")
    class_pixels: dict[str, int] = Field(
        description="The number of pixels of each class in all masks together."
    )
    description: JsonValue = Field(
        description="The fields of the request that say how its files were read. None for a "
        "dataset that an earlier version registered."
    )
    notes: list[NoteRead] = Field(
        description="Facts that the owner has to know: what was left out, chosen, or looks wrong."
    )


class ImageRead(BaseModel):
    """An image: a tile, or a whole section of a dataset without tiles."""

    n: int = Field(description="The number of the image in its dataset, from 0.")
    section: str = Field(description="The name of the section that the image is a part of.")
    split: Split = Field(description="The split of that section.")
    y0: int = Field(description="The first row of the image in the section, in pixels from 0.")
    x0: int = Field(description="The first column of the image in the section, in pixels from 0.")
    height: int = Field(description="The height of the image, in pixels.")
    width: int = Field(description="The width of the image, in pixels.")
    class_pixels: dict[str, int] | None = Field(
        description="The number of pixels of each class in the image's mask; none without a mask."
    )
