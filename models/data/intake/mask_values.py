"""The meaning of the values in masks: the class id that each becomes, and what is told of it.

Legend: H height, W width.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from models.data.description import IGNORED, Description
from models.data.intake.findings import Findings
from models.data.readers.limits import Array, ImageError

IGNORE_ID = 255
"""The class id that is stored for pixels without a class."""

_FOREGROUND = 255
_STRIP_ROWS = 512
_MANY_VALUES = 20
_MUCH_IGNORED = 0.05


def value_table(description: Description) -> dict[int, int]:
    """Return the class id of each mask value that the description gives a meaning."""
    names = description.class_names
    ids = {name: number for number, name in enumerate(names)} | {IGNORED: IGNORE_ID}
    if description.mask_values is None:
        table = dict(enumerate(range(len(names))))
        ignored: int | None = description.ignored_value
    else:
        table = {value: ids[meaning] for value, meaning in description.mask_values.items()}
        ignored = description.ignore_value
    return table if ignored is None else table | {ignored: IGNORE_ID}


class MaskValues:
    """Turns the values of all masks of a dataset into class ids, and counts them."""

    def __init__(self, description: Description) -> None:
        self._description = description
        self._table = value_table(description)
        self._counts: Counter[int] = Counter()
        self._misfits: Counter[int] = Counter()

    def ids(self, section: Array) -> NDArray[np.uint8]:
        """Return the class ids (H, W) uint8 of a mask, with 255 for ignored pixels.

        Raises:
            ImageError: values are no whole numbers, or some have no meaning. All values of the
                section are counted first.
        """
        values = _whole_numbers(section)
        ids = np.empty(values.shape, np.uint8)
        misfits: Counter[int] = Counter()
        for y0 in range(0, values.shape[0], _STRIP_ROWS):  # sorting takes several times the memory
            rows = slice(y0, y0 + _STRIP_ROWS)
            found, places, counts = _distinct(values[rows])
            meanings = [self._table.get(value) for value in found]
            for value, meaning, count in zip(found, meanings, counts, strict=True):
                (self._counts if meaning is not None else misfits)[value] += count
            known = np.array([m if m is not None else IGNORE_ID for m in meanings], np.uint8)
            ids[rows] = known[places]
        if misfits:
            self._misfits.update(dict(islice(misfits.items(), 1000)))  # a bound for noise as masks
            raise ImageError(self._misfit_words(misfits))
        return ids

    @property
    def foreground_is_255(self) -> bool:
        """Tell whether 255 is the second class: masks of two classes hold 0 and 255 but never 1.

        This holds unless the description says what the values mean, or what to ignore.
        """
        only = self._counts[0] and self._counts[_FOREGROUND] and not self._counts[1]
        return bool(only) and self._may_be_binary

    def settle(self, findings: Findings) -> None:
        """Add to the findings what the values of all masks together tell."""
        if self._misfits:
            findings.problem("mask_values", self._mending())
            return
        if not self._counts:
            return
        names = self._description.class_names
        pixels = self._class_pixels()
        ignored = sum(self._counts.values()) - sum(pixels)
        if self.foreground_is_255:
            findings.note(
                "masks",
                "foreground_255",
                f"The masks hold the values 0 and 255, and no pixel has the value 1. So 255 is "
                f"{names[1]}: {pixels[1]} pixels. If it is not, send mask_values.",
            )
        self._note_ignored(findings, ignored, ignored + sum(pixels))
        empty = [name for name, count in zip(names, pixels, strict=True) if not count]
        if len(names) - len(empty) == 1:
            only = next(name for name, count in zip(names, pixels, strict=True) if count)
            findings.note(
                "masks",
                "one_class",
                f"Every pixel of the masks that is not ignored is {only}. A network cannot learn "
                "to tell classes apart from them.",
            )
        for name in empty:
            findings.note("class_names", "empty_class", f"No pixel of any mask is {name}.")

    def _class_pixels(self) -> list[int]:
        pixels = [0] * len(self._description.class_names)
        for value, count in self._counts.items():
            class_id = self._table[value]
            if class_id != IGNORE_ID:
                pixels[class_id] += count
        if self.foreground_is_255:
            pixels[1] += self._counts[_FOREGROUND]
        return pixels

    def _note_ignored(self, findings: Findings, ignored: int, total: int) -> None:
        value = self._description.ignore_value
        if value is not None and value not in self._counts:
            findings.note(
                "ignore_value",
                "ignore_value_unused",
                f"No mask holds the value {value}, so ignore_value has no effect.",
            )
        if not ignored:
            return
        words = f"{ignored} pixels of the masks ({100 * ignored / total:.2g} %) are ignored."
        if ignored > _MUCH_IGNORED * total:
            words += " That is much: no network learns from them, and no score counts them."
        if self._ambiguous():
            words += (
                f" They hold the value 255, beside 0 and 1. If 255 is a class, say so: mask_values "
                f"{_as_json(self._suggestion([0, 1, 255]))}."
            )
        findings.note("masks", "ignored_pixels", words)

    def _ambiguous(self) -> bool:
        return self._may_be_binary and bool(self._counts[1]) and bool(self._counts[_FOREGROUND])

    @property
    def _may_be_binary(self) -> bool:
        told = (self._description.mask_values, self._description.ignore_value) != (None, None)
        return len(self._description.class_names) == 2 and not told

    def _misfit_words(self, misfits: Mapping[int, int]) -> str:
        shown = ", ".join(f"{value} ({count} px)" for value, count in sorted(misfits.items())[:5])
        more = ", ..." if len(misfits) > 5 else ""
        if self._description.mask_values is not None:
            return f"holds values that mask_values does not list: {shown}{more}"
        return (
            f"holds values that no class has: {shown}{more}. Ids are 0 to "
            f"{len(self._description.class_names) - 1}, and {self._description.ignored_value} for "
            "ignored pixels"
        )

    def _mending(self) -> str:
        """Return the words that tell all values of all masks, and the mapping to send."""
        counts = sorted((self._counts + self._misfits).items())
        if len(counts) > _MANY_VALUES:
            return (
                f"the masks hold {len(counts)} values or more, from {counts[0][0]} to "
                f"{counts[-1][0]}. Such masks number objects, or are images: save masks in which "
                "each class has one value"
            )
        found = ", ".join(f"{value} ({count} px)" for value, count in counts)
        mapping = _as_json(self._suggestion([value for value, _ in counts]))
        return (
            f"the masks hold the values {found}. Say what each of them means, a class or "
            f"{IGNORED!r}, such as {mapping}"
        )

    def _suggestion(self, values: Sequence[int]) -> dict[int, str]:
        """Return a mapping of the values in order; ``?`` stands for what cannot be guessed."""
        names = list(self._description.class_names)
        if len(values) == len(names):
            return dict(zip(values, names, strict=True))
        ignored = self._description.ignored_value
        if len(values) == len(names) + 1 and ignored in values:
            others = [value for value in values if value != ignored]
            return dict(zip(others, names, strict=True)) | {ignored: IGNORED}
        listed = self._description.mask_values or {}
        own = {
            value: IGNORED if class_id == IGNORE_ID else names[class_id]
            for value, class_id in self._table.items()
            if self._description.mask_values is None or value in listed
        }
        return {value: own.get(value, "?") for value in values}


def _whole_numbers(section: Array) -> NDArray[np.integer]:
    """Return the mask as integers: masks of two classes may be bool, and some are saved as floats.

    Raises:
        ImageError: it holds other numbers, or what is no number.
    """
    if section.dtype == bool:
        return section.astype(np.uint8)
    if np.issubdtype(section.dtype, np.integer):
        return section  # type: ignore[return-value]
    if not np.issubdtype(section.dtype, np.floating):
        raise ImageError(
            f"has the dtype {section.dtype.name}: a mask holds class ids, which are whole numbers"
        )
    floats = section.astype(np.float64, copy=False)
    with np.errstate(invalid="ignore"):
        whole = (np.floor(floats) == floats) & (np.abs(floats) < 2**31)
    if not whole.all():
        example = floats[~whole].flat[0]
        raise ImageError(
            f"holds the value {example:g}: a mask holds class ids, which are whole numbers"
        )
    return floats.astype(np.int64)


def _distinct(values: NDArray[np.integer]) -> tuple[list[int], NDArray[np.intp], list[int]]:
    """Return the distinct values, the place of each pixel's value among them, and their counts."""
    if values.dtype == np.uint8:
        counts = np.bincount(values.ravel(), minlength=256)
        found = np.flatnonzero(counts)
        places = np.zeros(256, np.intp)
        places[found] = np.arange(found.size)
        return found.tolist(), places[values], counts[found].tolist()
    found, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return found.tolist(), places.reshape(values.shape), counts.tolist()


def _as_json(mapping: Mapping[int, str]) -> str:
    return json.dumps({str(value): name for value, name in mapping.items()}, ensure_ascii=False)
