"""Finds the images that labels are given for: by number, by section, or by section and tile."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from models.data.readers.formats import section_name
from models.data.sections import Section

_SHOWN = 5


@dataclass(frozen=True)
class Extent:
    """The numbers of a section's images: ``count`` of them, from ``first`` on, row by row."""

    first: int
    count: int


class ImageNames:
    """The names of a dataset's images.

    ``extents`` holds the extent of each section that has images, by its index. The methods return
    the number of an image, and raise ValueError in words if a name fits none, or more than one.
    """

    def __init__(self, sections: Sequence[Section], extents: Mapping[int, Extent]) -> None:
        self._sections = sections
        self._extents = extents
        self._num_images = sum(extent.count for extent in extents.values())
        self._exact = {section.name: section.index for section in sections}
        self._composed = {composed(name): index for name, index in self._exact.items()}
        self._digits: dict[int, int | None] = {}
        for name, index in self._exact.items():
            if _is_number(name):  # None where 1 and 01 are two sections
                self._digits[int(name)] = None if int(name) in self._digits else index

    def number(self, number: int) -> int:
        """Return the number itself, if the dataset has such an image."""
        if number >= self._num_images:
            last = self._num_images - 1
            raise ValueError(f"the dataset has no image {number}: its images are 0 to {last}")
        return number

    def section(self, name: str) -> Section:
        """Return the section of this name."""
        index = self._section(name)
        if index is None:
            raise ValueError(f"the dataset has no section {name[:80]!r}: {self._some_sections()}")
        return self._sections[index]

    def images(self, section: Section) -> Extent:
        """Return the numbers of a section's images."""
        return self._extents.get(section.index, Extent(0, 0))

    def tile(self, name: str, tile: int | None) -> int:
        """Return the image that is this tile of a section; tiles count from 0, row by row."""
        index = self.section(name).index
        extent = self._extents.get(index, Extent(0, 0))
        if tile is None and extent.count > 1:
            raise ValueError(
                f"section {name!r} has {extent.count} tiles, each with labels of its own: name the "
                f"tile too, from 0 to {extent.count - 1}"
            )
        if (tile or 0) >= extent.count:
            raise ValueError(
                f"section {name!r} has no tile {tile or 0}: the number of its tiles is "
                f"{extent.count}, and they count from 0"
            )
        return extent.first + (tile or 0)

    def either(self, text: str) -> int:
        """Return the image that a number or the name of a section means.

        A number that is the name of another section too is refused, because a spreadsheet turns
        the name 001 into the number 1.
        """
        written = text.strip()
        if not _is_number(written) or str(int(written)) != written:
            return self.tile(text, None)
        number, index = int(written), self._section(written)
        if index is None:
            return self.number(number)
        if self._extents.get(index) == Extent(number, 1):
            return number
        name = self._sections[index].name
        raise ValueError(
            f"{written} may mean image {number} or section {name!r}: call the column `number` or "
            "`section` instead of `image`"
        )

    def _section(self, name: str) -> int | None:
        for candidate in _spellings(name):
            if candidate in self._exact:
                return self._exact[candidate]
            if composed(candidate) in self._composed:
                return self._composed[composed(candidate)]
        return self._digits.get(int(name)) if _is_number(name.strip()) else None

    def _some_sections(self) -> str:
        names = [section.name for section in self._sections[:_SHOWN]]
        rest = len(self._sections) - len(names)
        return f"its sections are {', '.join(names)}{f' and {rest} more' if rest else ''}"


def composed(text: str) -> str:
    """Return the text with each accent in its letter (NFC), as most systems but macOS write it."""
    return unicodedata.normalize("NFC", text)


def _spellings(name: str) -> Iterator[str]:
    """Yield a name as it was written, then without the suffix of its file."""
    yield name
    yield name.strip()
    yield section_name(name.strip())
    file, slash, number = name.rpartition("/")
    if slash:  # a section of a stack, such as stack.tif/0003
        yield f"{section_name(file)}/{number}"


def _is_number(text: str) -> bool:
    return len(text) < 10 and text.isascii() and text.isdecimal()
