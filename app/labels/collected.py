"""Collects the labels of a request, image by image, and everything that is wrong with them."""

from collections.abc import Mapping

from app.errors import Invalid, ProblemItem
from models.data.labels import LabelState

MOST_PROBLEMS = 100
"""The most problems that a refusal lists; it counts all of them."""

Classes = Mapping[str, LabelState]


class Collected:
    """The labels of a request by image, or what is wrong with them.

    ``place`` is the name of an entry of the request, with ``{}`` for its number.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._entries: dict[int, int] = {}
        self._labels: dict[int, Classes] = {}
        self._listed: list[ProblemItem] = []
        self._count = 0

    def add(self, entry: int, image: int, classes: Classes) -> None:
        """Take the labels of an image; it is a problem if an earlier entry names the same image."""
        if image in self._entries:
            earlier = self._place.format(self._entries[image])
            self.problem(entry, f"names image {image}, as {earlier} does: name each image once")
        self._entries.setdefault(image, entry)
        self._labels[image] = classes

    def problem(self, entry: int, message: str, field: str = "") -> None:
        """Note that an entry, or a field of the entry, is wrong."""
        self._count += 1
        if len(self._listed) < MOST_PROBLEMS:
            where = self._place.format(entry) + field
            self._listed.append(ProblemItem(where=where, message=message))

    def refuse_problems(self) -> None:
        """Raise Invalid if there is a problem."""
        if self._count:
            raise refused(self._count, self._listed)

    def labels(self) -> dict[int, Classes]:
        """Return the labels by the number of the image; Invalid if there is a problem."""
        self.refuse_problems()
        return self._labels


def refused(count: int, listed: list[ProblemItem]) -> Invalid:
    """Return the refusal of labels with ``count`` problems, the first of which are listed."""
    first = f"{listed[0].where}: {listed[0].message}"
    rest = f"; {len(listed)} of them are listed" if count > len(listed) else ""
    return Invalid(
        f"{count} label(s) are wrong, so none was written{rest}; the first is {first}", listed
    )
