"""Schemas of the answers about datasets that are looked at before anything is trained."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field, JsonValue

from app.datasets.schemas import NoteRead
from app.probes.schemas import ExpectedBenefit


class ClassComparison(BaseModel):
    """Compares one class of the masks of two datasets."""

    name: str = Field(description="The name of the class.")
    source_grey: float = Field(
        description="The mean grey value of the class in the source, from 0 (black) to 1 (white)."
    )
    target_grey: float = Field(description="The same in the target.")
    source_thickness_nm: float = Field(
        description="The thickness of the class in the source, in nanometres: the width of a "
        "membrane, or half the diameter of a disc."
    )
    target_thickness_nm: float = Field(description="The same in the target.")


class Finding(BaseModel):
    """Tells one thing that may spoil an adaptation, and what would mend it."""

    code: Literal[
        "classes_missing",
        "classes_extra",
        "contrast_inverted",
        "structure_scale",
        "sections_small",
        "grey_shift",
    ] = Field(description="The kind of the finding, as one word for programs.")
    message: str = Field(description="The finding in words.")
    change: dict[str, JsonValue] | None = Field(
        None,
        description="The fields that would mend it, when the target is registered again with them; "
        "none if no field would.",
    )


class Compatibility(BaseModel):
    """Tells how well two datasets fit each other as source and target."""

    source: UUID = Field(description="The id of the source.")
    target: UUID = Field(description="The id of the target.")
    shared_classes: list[str] = Field(description="The classes that both have, as in the source.")
    missing_classes: list[str] = Field(description="The classes that the target lacks.")
    extra_classes: list[str] = Field(description="The classes that the source lacks.")
    working_nm: float = Field(
        description="The pixel size, in nanometres, at which both were compared: the source's."
    )
    target_size_factor: float = Field(
        description="The factor by which the sides of a target section change in pixels when it is "
        "resampled to that pixel size."
    )
    smallest_section_px: tuple[int, int] = Field(
        description="The height and width of the target's smallest section after resampling."
    )
    source_grey: tuple[float, float] = Field(
        description="The mean and the standard deviation of the source's grey values, on the scale "
        "from 0 (black) to 1 (white) of its grey window."
    )
    target_grey: tuple[float, float] = Field(description="The same of the target.")
    contrast_inverted: bool | None = Field(
        description="`true` if dark structures of one dataset are bright in the other; none if the "
        "images do not tell."
    )
    contrast_evidence: Literal["masks", "images"] = Field(
        description="`masks`: the grey values of the classes were compared. `images`: only the "
        "shapes of bright and dark structures were compared, which is less certain."
    )
    classes: list[ClassComparison] = Field(
        description="The classes that the masks of both show. It is empty without masks."
    )
    benefit: ExpectedBenefit = Field(description="What to expect of an adaptation.")
    findings: list[Finding] = Field(
        description="What may spoil an adaptation. It is empty if nothing was found."
    )


class ClassFrequency(BaseModel):
    """Counts one class in the masks of a dataset."""

    name: str = Field(description="The name of the class.")
    pixels: int = Field(description="The number of its pixels in all masks.")
    share: float = Field(description="Its share of all pixels that have a class, from 0 to 1.")
    images_without: int = Field(
        description="The number of images whose mask shows no pixel of the class."
    )


class SizeCount(BaseModel):
    """Counts the sections of one size."""

    height: int = Field(description="The height, in pixels.")
    width: int = Field(description="The width, in pixels.")
    sections: int = Field(description="The number of sections of this size.")


class Bin(BaseModel):
    """A bar of a histogram."""

    low: float = Field(description="The lowest grey value of the bar.")
    high: float = Field(description="The grey value at which the next bar begins.")
    pixels: int = Field(description="The number of pixels between them.")


class DatasetInspection(BaseModel):
    """Tells what a dataset holds and what looks wrong, before anything is trained on it."""

    id: UUID = Field(description="The id of the dataset.")
    name: str = Field(description="The name that its owner gave.")
    num_sections: int = Field(description="The number of sections.")
    num_masks: int = Field(description="The number of sections that have a mask.")
    num_images: int = Field(description="The number of images: tiles, or sections without tiles.")
    dtype: str = Field(description="The type of a grey value.")
    pixel_size_nm: float = Field(description="The width of a pixel, in nanometres.")
    pixel_size_from: str = Field(
        description="Says who gave the pixel size: the `request`, or the `file`."
    )
    intensity_window: tuple[float, float] = Field(
        description="The grey values that become 0 (black) and 1 (white)."
    )
    histogram: list[Bin] = Field(
        description="The number of pixels of each range of grey values, as counted at "
        "registration. It is empty for a dataset of an earlier version."
    )
    sizes: list[SizeCount] = Field(description="The sizes of the sections, most frequent first.")
    classes: list[ClassFrequency] = Field(description="The classes in the masks, by their ids.")
    splits: dict[str, int] = Field(description="The number of sections of each split.")
    groups: dict[str, int] = Field(description="The number of sections of each group.")
    touching_splits: list[tuple[str, str]] = Field(
        description="Pairs of neighbouring sections that are in two splits, with none unused "
        "between them. In a volume such sections are nearly the same picture."
    )
    remarks: list[NoteRead] = Field(description="What to know about the dataset, or to look at.")
