"""Sections that a volume lost: blank ones, and those that repeat the section before them.

Where a slice was lost, some programs write one grey value, and others the neighbour once more.
Such sections stay in the dataset, so that the numbers of the others stay, but take no part.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.data.intake.padding import is_blank
from models.data.readers.limits import Array, ImageError

_MANY = 1000


@dataclass
class LostSections:
    """Looks at each section of a dataset in turn.

    ``blank`` holds the indices of sections of one grey value. ``copies`` has the first section of
    the same pixels, by index, for every other copy.
    """

    blank: set[int] = field(default_factory=set)
    copies: dict[int, int] = field(default_factory=dict)
    _first: dict[str, int] = field(default_factory=dict)
    _num_seen: int = 0

    def look(self, index: int, section: Array, digest: str) -> bool:
        """Note whether the section is blank or a copy; tell if it is blank.

        ``digest`` is that of its pixels.

        Raises:
            ImageError: more than a thousand sections are lost, and these are most of them: a small
                file could hold any number of them.
        """
        self._num_seen += 1
        blank = is_blank(section)
        if blank:
            self.blank.add(index)
        first = self._first.setdefault(f"{section.shape} {digest}", index)
        if first != index and not blank:
            self.copies[index] = first
        lost = len(self.blank) + len(self.copies)
        if (blank or index in self.copies) and lost > _MANY and 2 * lost > self._num_seen:
            raise ImageError(
                f"holds {lost} sections that are blank or repeat another, of {self._num_seen} read "
                "so far: give a volume of which more than half shows something"
            )
        return blank

    @property
    def unusable(self) -> set[int]:
        """The blank sections, and copies that follow their first section without another between.

        If all sections are blank, none of them was lost.
        """
        blank = self.blank if len(self.blank) < self._num_seen else set()
        lost = set(blank)
        for index, first in sorted(self.copies.items()):
            if all(between in lost for between in range(first + 1, index)):
                lost.add(index)
        return lost

    def other_copies(self) -> Mapping[int, int]:
        """Return the copies that are not lost sections: their first section by their index."""
        lost = self.unusable
        return {index: first for index, first in self.copies.items() if index not in lost}
