"""The masks of one image, read in step with its sections and brought to their size."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models.data.intake.findings import Findings
from models.data.intake.mask_values import MaskValues
from models.data.readers.limits import Array, ImageError, in_words


class MaskStack:
    """The masks in one file; a problem with them is named once."""

    def __init__(
        self, name: str, sections: Iterator[Array], values: MaskValues, findings: Findings
    ) -> None:
        self.name = name
        self._sections = sections
        self._values = values
        self._findings = findings
        self._failed = False
        self._misfits = False
        self.scaled = False
        """Tells whether a mask was not of its image's size, and was brought to it."""

    @classmethod
    def failed(cls, name: str, values: MaskValues, findings: Findings) -> "MaskStack":
        """Return the masks of a file that cannot be opened, which is a problem already."""
        stack = cls(name, iter(()), values, findings)
        stack._failed = True
        return stack

    def next_ids(self, section_name: str, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return the class ids (H, W) of the next mask at the size of its section.

        None stands for a mask with a problem.
        """
        if self._failed:
            return None
        try:
            mask = next(self._sections, None)
            if mask is None:
                raise ImageError("holds fewer masks than its image has sections")
            if mask.shape != shape:
                mask = at_size(mask, shape)
                self.scaled = True
        except ImageError as error:
            self._failed = True
            self._findings.problem(self.name, of_section(section_name, error))
            return None
        try:
            return self._values.ids(mask)
        except ImageError as error:
            # Named once a file; the next sections are read on, to tell all values of all masks.
            if not self._misfits:
                self._findings.problem(self.name, of_section(section_name, error))
            self._misfits = True
            return None

    def check_end(self) -> None:
        """Make it a problem if there are masks left when the image has no more sections."""
        try:
            more = not self._failed and next(self._sections, None) is not None
        except ImageError:
            more = True  # something is there, if only a damaged mask
        if more:
            self._findings.problem(self.name, "holds more masks than its image has sections")


def at_size(mask: Array, shape: tuple[int, int]) -> Array:
    """Bring a mask to a size (H, W) by one whole factor for both axes; each pixel keeps its value.

    Raises:
        ImageError: there is no such factor.
    """
    for large, small in ((shape, mask.shape), (mask.shape, shape)):
        factor = large[0] // small[0]
        if factor > 0 and (small[0] * factor, small[1] * factor) == large:
            if large == shape:
                return mask.repeat(factor, 0).repeat(factor, 1)
            return mask[factor // 2 :: factor, factor // 2 :: factor]
    raise ImageError(
        f"is {in_words(mask.shape)} and its image is {in_words(shape)}: both need the same size, "
        "or one must be a whole multiple of the other"
    )


def of_section(name: str, error: ImageError) -> str:
    """Return the error's words, with the section's name if it is one of a stack."""
    return f"section {name}: {error}" if "/" in name else str(error)
