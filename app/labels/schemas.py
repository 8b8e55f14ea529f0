"""Schemas of the requests and answers about labels."""

from pydantic import BaseModel, ConfigDict, Field

from models.data.labels import LabelState
from models.data.sections import Split


class ImageLabels(BaseModel):
    """Says which classes one image shows."""

    model_config = ConfigDict(extra="forbid")

    image: int = Field(ge=0, description="The number `n` of the image.")
    classes: dict[str, LabelState] = Field(
        description="The label of each class: `present`, `absent` or `unknown`. A class that is "
        "not named keeps its label.",
        examples=[{"mitochondrion": "present", "nucleus": "absent", "vesicle": "unknown"}],
    )


class LabelsUpdate(BaseModel):
    """Labels of many images. The service writes all of them or, if one is wrong, none."""

    model_config = ConfigDict(extra="forbid")

    labels: list[ImageLabels] = Field(
        min_length=1,
        max_length=1_000_000,
        description="The labels, image by image. If an image comes twice, the later label of a "
        "class counts.",
    )


class LabelsRead(BaseModel):
    """The labels of one image."""

    image: int = Field(description="The number of the image.")
    section: str = Field(description="The name of the section that the image is a part of.")
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
