"""What the labels routes take and give."""

from pydantic import BaseModel, ConfigDict, Field

from models.data.labels import LabelState
from models.data.sections import Split


class ImageLabels(BaseModel):
    """The classes in one image. A class that is not named keeps its label."""

    model_config = ConfigDict(extra="forbid")

    image: int = Field(ge=0, description="The number of the image, from 0.")
    classes: dict[str, LabelState] = Field(
        description="The label of each class that is named.",
        examples=[{"mitochondrion": "present", "nucleus": "absent", "vesicle": "unknown"}],
    )


class LabelsUpdate(BaseModel):
    """Labels of many images, written together or not at all."""

    model_config = ConfigDict(extra="forbid")

    labels: list[ImageLabels] = Field(
        min_length=1, max_length=1_000_000, description="The labels of each image."
    )


class LabelsRead(BaseModel):
    """The labels of one image, every class named; a class nobody labelled is unknown."""

    image: int = Field(description="The number of the image, from 0.")
    section: str = Field(description="The name of the section that the image is of.")
    classes: dict[str, LabelState] = Field(description="The label of each class.")


class LabelsSummary(BaseModel):
    """What a change of labels did, and how many labels the dataset has now."""

    changed_images: int = Field(
        description="The number of images whose labels are others than before."
    )
    counts: dict[str, dict[LabelState, int]] = Field(
        description="For each class, the number of images where it is present, absent and unknown."
    )


class DeriveRequest(BaseModel):
    """Asks to label images by what is in their masks, in an annotator's place."""

    model_config = ConfigDict(extra="forbid")

    min_pixels: int = Field(
        1, ge=1, description="The least number of pixels of a class that is present."
    )
    split: Split | None = Field(None, description="Labels only images of this split.")
