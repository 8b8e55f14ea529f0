"""The ask that every reader takes, and the stack of sections that it gives.

Legend: N sections of a stack, H height, W width.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from pydantic import Field

from models.config.base import FrozenConfig
from models.data.readers.limits import Array

Purpose = Literal["image", "mask"]


class ReadOptions(FrozenConfig):
    """Chooses the stack to read from files that hold several."""

    channel: int | None = Field(
        None,
        ge=0,
        le=999,
        description="The number of the channel to read, from 0, in files with several channels, "
        "such as two detectors. Without this field such files are refused.",
    )
    axis: Literal["z", "y", "x"] = Field(
        "z",
        description="The axis of a volume along which it is cut into sections. A section cut along "
        "z shows y and x.",
    )
    start: int = Field(0, ge=0, le=2**31 - 1, description="The number of the first section read.")
    stop: int | None = Field(
        None,
        ge=1,
        le=2**31 - 1,
        description="The number of the section before which reading ends; without it, the end of "
        "the volume.",
    )
    step: int = Field(
        1, ge=1, le=2**31 - 1, description="Each so many-th section is read: 2 reads every other."
    )
    level_nm: float | None = Field(
        None,
        ge=1e-3,
        le=1e6,
        description="The pixel size, in nanometres, of the level to read from a file that holds "
        "the same volume at several sizes: the nearest level is read. Without it, the finest.",
    )
    path: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="The path of the array to read inside an HDF5, NPZ or Zarr file with several.",
    )
    mask_path: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="The path of the array of masks, as labels/mito in OME-Zarr. If an image has "
        "no file of masks, this array is read from the image's own file. Without this field, masks "
        "have the path of images.",
    )


@dataclass(frozen=True)
class Ask:
    """Asks a reader for sections.

    ``max_pixels`` bounds H * W of a section. An image's grey values are read as a viewer shows
    them; a mask's values are read as class ids, palette indices included.
    """

    max_pixels: int
    purpose: Purpose = "image"
    options: ReadOptions = field(default_factory=ReadOptions)


def ask_for(purpose: Purpose, max_pixels: int, options: ReadOptions) -> Ask:
    """Ask for images or masks; masks may have a path of their own."""
    if purpose == "mask" and options.mask_path is not None:
        options = options.changed({"path": options.mask_path})
    return Ask(max_pixels, purpose, options)


@dataclass(frozen=True)
class Stack:
    """The sections (H, W) of a file, in order; each is read when it is asked for.

    ``pixel_size_nm`` (y, x) is what the file says of itself, in nanometres, or None. ``notes`` say
    what the reader left out or chose, in words that follow the file's name. ``section_bytes`` are
    those of a section's pixels, or None where that is not known before they are read.
    """

    sections: Iterator[Array]
    num_sections: int
    pixel_size_nm: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    section_bytes: int | None = None


Opener = Callable[[BinaryIO, Ask], AbstractContextManager[Stack]]
"""A reader of one format: it checks the header and opens the file's stack, or raises ImageError."""
