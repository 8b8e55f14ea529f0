"""Schemas of the requests and answers about labels."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from models.data.labels import LabelState
from models.data.sections import Split

_LABELS_EXAMPLE: dict[str, JsonValue] = {
    "labels": [
        {"image": 0, "classes": {"mitochondrion": "present", "nucleus": "absent"}},
        {"section": "s00", "tile": 3, "classes": {"mitochondrion": "absent"}},
    ]
}

SHEET_EXAMPLE = "section,tile,mitochondrion,nucleus\ns00,0,1,0\ns00,3,0,\n"


class ImageLabels(BaseModel):
    """Says which classes one image shows. The image is named by number, or by section and tile."""

    model_config = ConfigDict(extra="forbid")

    image: int | None = Field(None, ge=0, description="The number `n` of the image.")
    section: str | None = Field(
        None,
        description="The name of the section that the image is a part of, instead of `image`. The "
        "name of the section's file works too.",
    )
    tile: int | None = Field(
        None,
        ge=0,
        description="The number of the tile in its section. Tiles count from 0, row by row. It may "
        "be left out if the section is one image.",
    )
    classes: dict[str, LabelState] = Field(
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


class LabelsUpdate(BaseModel):
    """Labels of many images. The service writes all of them or, if one is wrong, none."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_LABELS_EXAMPLE]})

    labels: list[ImageLabels] = Field(
        min_length=1,
        max_length=1_000_000,
        description="The labels, image by image. Each image comes once.",
    )


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

    changed_images: int = Field(description="The number of images whose labels changed.")
    counts: dict[str, dict[LabelState, int]] = Field(
        description="For each class, the number of images in which it is present, absent and "
        "unknown."
    )


class DeriveRequest(BaseModel):
    """Asks to label images by their masks."""

    model_config = ConfigDict(extra="forbid")

    min_pixels: int = Field(
        1,
        ge=1,
        description="The least number of pixels of a present class. A class with fewer pixels in "
        "the mask is labelled absent.",
    )
    split: Split | None = Field(
        None, description="The split whose images are labelled; without it, all images."
    )
