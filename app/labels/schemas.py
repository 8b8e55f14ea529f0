"""What the labels routes take and give."""

from pydantic import BaseModel, ConfigDict, Field

from models.data.labels import LabelState
from models.data.sections import Split


class ImageLabels(BaseModel):
    """Which classes are in one image. A class that is not named keeps its label."""

    model_config = ConfigDict(extra="forbid")

    image: int = Field(ge=0, description="Number n of the image.")
    classes: dict[str, LabelState] = Field(
        examples=[{"mitochondrion": "present", "nucleus": "absent", "vesicle": "unknown"}]
    )


class LabelsUpdate(BaseModel):
    """Labels of many images, written together or not at all."""

    model_config = ConfigDict(extra="forbid")

    labels: list[ImageLabels] = Field(min_length=1, max_length=1_000_000)


class LabelsRead(BaseModel):
    """The labels of one image, every class named; a class nobody labelled is unknown."""

    image: int
    section: str
    classes: dict[str, LabelState]


class LabelsSummary(BaseModel):
    """What changed, and where the dataset now stands."""

    changed_images: int = Field(description="Images whose labels are others than before.")
    counts: dict[str, dict[LabelState, int]] = Field(
        description="For each class, the number of images present, absent and unknown."
    )


class DeriveRequest(BaseModel):
    """Label images from their masks."""

    model_config = ConfigDict(extra="forbid")

    min_pixels: int = Field(1, ge=1, description="A class with fewer pixels counts as absent.")
    split: Split | None = Field(None, description="Only images of this split.")
