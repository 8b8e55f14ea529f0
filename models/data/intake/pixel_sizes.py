"""The size of a pixel of each section: what the request gives, compared with what the files say."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import isclose
from typing import Literal

from models.data.description import Description
from models.data.intake.findings import Findings, listed
from models.data.sections import Section

PixelNm = tuple[float, float]
"""The size of a pixel along y and x, in nanometres."""

From = Literal["request", "file"]

_AGREE = 0.01
_EQUAL = 1e-3


class PixelSizes:
    """Collects what the files say, and decides for each section when all have been read."""

    def __init__(self, description: Description) -> None:
        self._description = description
        self._said: list[tuple[str, PixelNm | None]] = []

    def add(self, file_name: str, said: PixelNm | None) -> None:
        """Keep what the file of the next section says."""
        self._said.append((file_name, said))

    def settled(
        self, sections: Sequence[Section], findings: Findings
    ) -> tuple[list[Section], float, From]:
        """Return the sections with sizes of their own, the size of the dataset, and who gave it.

        The dataset's size is the one that was given, or else the median of the sections' finer
        sides. A section has a size of its own only where that differs.
        """
        given = self._given(sections, findings)
        self._check(given, findings)
        sizes = [wanted or said for wanted, (_, said) in zip(given, self._said, strict=True)]
        if findings.problems or None in sizes:
            return list(sections), 1.0, "request"
        known = [size for size in sizes if size is not None]
        of_dataset = self._description.pixel_size_nm or statistics.median_low(map(min, known))
        own = [None if _equal(size, (of_dataset, of_dataset)) else size for size in known]
        self._note(known, own, findings)
        sized = [replace(s, pixel_size_nm=size) for s, size in zip(sections, own, strict=True)]
        return sized, of_dataset, "request" if any(given) else "file"

    def _given(self, sections: Sequence[Section], findings: Findings) -> list[PixelNm | None]:
        """Return the size that the request gives for each section."""
        named = self._description.pixel_sizes_nm or {}
        if unknown := sorted(named.keys() - {section.name for section in sections}):
            findings.problem(
                "pixel_sizes_nm",
                f"names {listed(unknown)}, but no section has this name: it is the name of its "
                "file without suffix, in a stack followed by its number, as in 'stack/0003'",
            )
        of_all = self._description.pixel_size_nm
        sizes = [named.get(section.name, of_all) for section in sections]
        return [None if size is None else (size, size) for size in sizes]

    def _check(self, given: Sequence[PixelNm | None], findings: Findings) -> None:
        silent: dict[str, None] = {}
        other: defaultdict[tuple[PixelNm, PixelNm], dict[str, None]] = defaultdict(dict)
        for wanted, (name, said) in zip(given, self._said, strict=True):
            if wanted is None and said is None:
                silent[name] = None
            elif wanted is not None and said is not None and not _agree(wanted, said):
                other[wanted, said][name] = None
        if silent:
            findings.problem(
                "pixel_size_nm",
                f"{len(silent)} files do not say their pixel size: give pixel_size_nm. Files: "
                f"{listed(list(silent))}",
            )
        if self._description.ignore_file_pixel_size:
            return
        for (wanted, said), names in other.items():
            findings.problem(
                "pixel_size_nm",
                f"the pixel size is {wanted[0]:g} nm, but the file {listed(list(names))} says "
                f"{_in_words(said)}. Give the size that the file says or leave this field out; if "
                "the file is wrong, set ignore_file_pixel_size",
            )

    def _note(
        self, known: Sequence[PixelNm], own: Sequence[PixelNm | None], findings: Findings
    ) -> None:
        if self._description.pixel_size_nm is None and not self._description.pixel_sizes_nm:
            finest, coarsest = min(known), max(known)
            words = _in_words(finest)
            if finest != coarsest:
                words = f"from {words} to {_in_words(coarsest)}"
            findings.note(
                "pixel_size_nm", "pixel_size_of_files", f"The files say pixels of {words}."
            )
        if any(size is not None and not isclose(*size, rel_tol=_EQUAL) for size in own):
            findings.note(
                "pixel_size_nm",
                "pixels_not_square",
                "Pixels are not as high as they are wide. Networks see the sections resampled to "
                "square pixels; tiles and predictions have the pixels of the files.",
            )


def _agree(one: PixelNm, other: PixelNm) -> bool:
    return all(isclose(a, b, rel_tol=_AGREE) for a, b in zip(one, other, strict=True))


def _equal(one: PixelNm, other: PixelNm) -> bool:
    return all(isclose(a, b, rel_tol=_EQUAL) for a, b in zip(one, other, strict=True))


def _in_words(size: PixelNm) -> str:
    y, x = size
    return f"{x:g} nm" if isclose(y, x, rel_tol=_EQUAL) else f"{x:g} nm wide and {y:g} nm high"
