"""Schemas of the requests and answers about labels."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    model_validator,
)

from app.http.pagination import LARGEST_NUMBER
from app.labels.points import MOST_POINTS
from app.tables import ChangeKind
from models.data.description import ClassName, Text
from models.data.labels import LabelState
from models.data.sections import Split

_LABELS_EXAMPLE: dict[str, JsonValue] = {
    "labels": [
        {"image": 0, "classes": {"mitochondrion": "present", "nucleus": "absent"}},
        {"section": "s00", "tile": 3, "classes": {"mitochondrion": "absent"}},
    ],
    "points": [
        {"section": "s01", "y": 210, "x": 87, "class": "mitochondrion"},
        {"section": "s01", "y": 14, "x": 300, "class": "nucleus", "label": "absent"},
    ],
}

MOST_LABELS = 1_000_000
"""The most entries of one request."""

SHEET_EXAMPLE = "section,tile,mitochondrion,nucleus\ns00,0,1,0\ns00,3,0,\n"

POINTS_EXAMPLE = "section,y,x,class,label\ns01,210,87,mitochondrion,1\ns01,14,300,nucleus,0\n"


class ImageLabels(BaseModel):
    """Says which classes one image shows. The image is named by number, or by section and tile."""

    model_config = ConfigDict(extra="forbid")

    image: int | None = Field(
        None, ge=0, le=LARGEST_NUMBER, description="The number `n` of the image."
    )
    section: str | None = Field(
        None,
        max_length=300,
        description="The name of the section that the image is a part of, instead of `image`. The "
        "name of the section's file works too.",
    )
    tile: int | None = Field(
        None,
        ge=0,
        le=LARGEST_NUMBER,
        description="The number of the tile in its section. Tiles count from 0, row by row. It may "
        "be left out if the section is one image.",
    )
    classes: dict[ClassName, LabelState] = Field(
        max_length=255,
        description="The label of each class: `present`, `absent` or `unknown`. A class that is "
        "not named keeps its label.",
        examples=[{"mitochondrion": "present", "nucleus": "absent", "vesicle": "unknown"}],
    )

    @model_validator(mode="after")
    def _names_one_image(self) -> Self:
        if (self.image is None) == (self.section is None):
            raise ValueError("an image is named by `image` or by `section`: give one of the two")
        if self.tile is not None and self.section is None:
            raise ValueError("`tile` counts the tiles of a section: name the `section` too")
        return self


class PointLabel(BaseModel):
    """Says of one pixel of a section that it is of a class ("here is one"), or is not."""

    model_config = ConfigDict(extra="forbid")

    section: str = Field(
        max_length=300, description="The name of the section, or of the section's file."
    )
    y: int = Field(
        ge=0,
        le=LARGEST_NUMBER,
        description="The row of the pixel in the section as it is stored, from 0 at the top.",
    )
    x: int = Field(ge=0, le=LARGEST_NUMBER, description="The column, from 0 on the left.")
    class_name: ClassName = Field(alias="class", description="The name of the class.")
    label: LabelState = Field(
        LabelState.PRESENT,
        description="`present`: the pixel is of the class, so the image that holds it is labelled "
        "present too. `absent`: it is of another class. `unknown` takes the point away; the label "
        "of the image stays.",
    )


class LabelsUpdate(BaseModel):
    """Labels and points of many images. The service writes all or, if one is wrong, none."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_LABELS_EXAMPLE]})

    labels: list[ImageLabels] = Field(
        [],
        max_length=MOST_LABELS,
        description="The labels, image by image. Each image comes once.",
    )
    points: list[PointLabel] = Field(
        [],
        max_length=MOST_POINTS,
        description="Points, which say more than labels of images. A pixel and a class come once. "
        "Points that are not named stay.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.labels or self.points):
            raise ValueError("there is nothing to write: give `labels`, `points`, or both")
        return self


class LabelsRead(BaseModel):
    """The labels of one image."""

    image: int = Field(description="The number of the image.")
    section: str = Field(description="The name of the section that the image is a part of.")
    tile: int = Field(description="The number of the image in its section, from 0, row by row.")
    classes: dict[str, LabelState] = Field(
        description="The label of each class; `unknown` where nobody has given one."
    )


class LabelsSummary(BaseModel):
    """The labels of a dataset after a change, counted."""

    version: int = Field(
        description="The version of the labels: the number of their last change, 0 before the "
        "first. The header `ETag` holds it too."
    )
    changed_images: int = Field(description="The number of images whose labels changed.")
    counts: dict[str, dict[LabelState, int]] = Field(
        description="For each class, the number of images in which it is present, absent and "
        "unknown."
    )
    changed_points: int = Field(0, description="The number of points that changed.")
    points: dict[str, dict[LabelState, int]] = Field(
        {},
        description="For each class that has points, the number of those that are present, and "
        "absent.",
    )


PixelCount = Annotated[int, Field(ge=1, le=LARGEST_NUMBER)]
MinPixels = Annotated[
    Annotated[PixelCount, Tag("number")]
    | Annotated[dict[ClassName, PixelCount], Field(max_length=255), Tag("by_class")],
    # So that a refusal names what is wrong with the one form that was sent, and not with both.
    Discriminator(lambda given: "by_class" if isinstance(given, dict) else "number"),
]


class DeriveRequest(BaseModel):
    """Asks to label images by their masks."""

    model_config = ConfigDict(extra="forbid")

    min_pixels: MinPixels = Field(
        1,
        description="The least number of pixels of a present class: one number, or a number for "
        "each class that it names, and 1 for the others. A class with fewer pixels in the mask is "
        "labelled absent.",
        examples=[1, {"mitochondrion": 50}],
    )
    split: Split | None = Field(
        None, description="The split whose images are labelled; without it, all images."
    )


class DerivedSummary(LabelsSummary):
    """The labels of a dataset after they were derived from its masks, counted."""

    derived: dict[str, dict[LabelState, int]] = Field(
        description="For each class, the number of images that were labelled present, and absent."
    )
    notes: dict[str, str] = Field(
        description="A remark on each class that was labelled alike in all images."
    )


class ChangeNote(BaseModel):
    """Facts about a change of labels that its history keeps."""

    model_config = ConfigDict(extra="forbid")

    by: Annotated[Text, Field(max_length=200)] | None = Field(
        None, description="The name of whoever gave the labels; any text."
    )
    seconds: float | None = Field(
        None,
        ge=0,
        le=1e7,
        allow_inf_nan=False,
        description="The time that was spent on these labels, in seconds.",
    )


class ChangeRead(BaseModel):
    """A change of a dataset's labels."""

    model_config = ConfigDict(from_attributes=True)

    version: int = Field(description="The version of the labels after the change.")
    kind: ChangeKind = Field(
        description="The way by which the labels came: `put` (JSON), `csv` or `derive`."
    )
    by: str | None = Field(description="The name of whoever gave the labels, if it was sent.")
    seconds: float | None = Field(
        description="The time that was spent on the labels, in seconds, if it was sent."
    )
    changed_images: int = Field(description="The number of images whose labels changed.")
    changed_points: int = Field(0, description="The number of points that changed.")
    complete: bool = Field(
        description="`false` while the labels are being written. It stays `false` if the service "
        "was stopped meanwhile: only some of the images have these labels then."
    )
    changed_at: datetime = Field(description="The time when labels were last written.")


class TileSizeRead(BaseModel):
    """Tiles of one size, measured in the masks of a dataset."""

    tile_px: int = Field(description="The side of the tiles, in pixels of the dataset.")
    tile_nm: float = Field(
        description="The side of the tiles on the sample, in nanometres. Divide it by the pixel "
        "size of another dataset to get tiles of the same size there."
    )
    num_tiles: int = Field(description="The number of tiles that were measured.")
    shares: dict[str, float] = Field(
        description="For each class, the share of these tiles that show it, from 0 to 1."
    )


class TileSizesRead(BaseModel):
    """Tiles of several sizes, measured in the masks of a dataset."""

    sizes: list[TileSizeRead] = Field(description="The sizes, smallest first.")
    suggested_tile_px: int | None = Field(
        description="The size at which most classes are in 30 to 60 % of the tiles. A label says "
        "little of a class that is in nearly all tiles or in nearly none. None if no class is in "
        "30 to 60 % of the tiles of any size."
    )
    read: float = Field(
        description="The share of the masks that was read, from 0 to 1. Of large masks it is a "
        "part, chosen at random, but always the same."
    )
