"""The sections of a dataset: the micrographs it is made of, and the split of each."""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val", "test", "unused"]


@dataclass(frozen=True)
class Section:
    """One micrograph: its place in the store, size in native pixels, and split."""

    index: int
    name: str
    split: Split
    height: int
    width: int
    has_mask: bool
    group: str | None = None
    """The volume or crop that the section was cut from, if its owner said so."""
    intensity_window: tuple[float, float] | None = None
    """The grey values of this section that become 0 and 1, if they are not those of the dataset."""
    pixel_size_nm: tuple[float, float] | None = None
    """The size of its pixels along y and x, in nanometres, if it is not that of the dataset."""
    unannotated: tuple[int, ...] | None = None
    """The ids of the classes of which its mask says nothing, if there are any."""
