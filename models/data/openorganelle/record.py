"""The record of a fetched crop, which lies beside its images and masks."""

from typing import Literal

from pydantic import Field

from models.config.base import FrozenConfig
from models.data.openorganelle.geometry import Nm, Shape


class CropRecord(FrozenConfig):
    """The facts of a fetched crop: where it came from, what it holds, and how to check it."""

    version: Literal[1] = 1
    name: str = Field(description="The name of the crop.")
    group: str = Field(description="The crop, with those that overlap it.")
    place: str = Field(description="The folder or address of the hierarchy that was read.")
    em: str = Field(description="The array of the micrographs.")
    labels: tuple[str, ...] = Field(description="The arrays of the labels.")
    start: Shape = Field(description="The first voxel of the micrographs, in z, y, x.")
    shape: Shape = Field(description="The number of voxels along z, y, x.")
    voxel_nm: Nm = Field(description="The size of a voxel along z, y, x, in nanometres.")
    block: Shape = Field(description="The label voxels that made one voxel, along z, y, x.")
    table: str = Field(description="The SHA-256 of the class table.")
    class_names: tuple[str, ...] = Field(description="The classes, in the order of their ids.")
    annotated: tuple[str, ...] = Field(
        description="The classes that were annotated in the crop. Nobody knows whether another "
        "class is there."
    )
    class_pixels: tuple[tuple[int, ...], ...] = Field(
        description="For each section, the number of pixels of each class."
    )
    homogeneous: str | None = Field(
        description="The class of all pixels that have a class, if there is only one."
    )
    num_lost: int = Field(description="The files of labels that were missing.")
    image_sha256: str = Field(description="The SHA-256 of the file of the images.")
    mask_sha256: str = Field(description="The SHA-256 of the file of the masks.")
    notes: tuple[str, ...] = Field(description="What else to know about the crop.")
