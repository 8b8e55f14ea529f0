"""Image-level labels: their words, their codes in arrays, and the rule by which masks give them.

Legend: C classes.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class LabelState(StrEnum):
    """The label of an image for one class, in the words that people and JSON use."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


UNKNOWN, ABSENT, PRESENT = -1, 0, 1
"""The codes of the same three states, in tiles and arrays."""

_WORDS = {
    LabelState.PRESENT: ("present", "yes", "true", "1", "1.0"),
    LabelState.ABSENT: ("absent", "no", "false", "0", "0.0"),
    LabelState.UNKNOWN: ("unknown", "?", ""),
}
_STATES = {word: state for state, words in _WORDS.items() for word in words}

_CODES = {LabelState.PRESENT: PRESENT, LabelState.ABSENT: ABSENT, LabelState.UNKNOWN: UNKNOWN}


def label_state(text: str) -> LabelState:
    """Return the label that a cell of a table means; an empty cell means unknown.

    A program that fills the gaps in a column of 0 and 1 writes 0.0 and 1.0, which are read too.

    Raises:
        ValueError: the text is none of the words and numbers that mean a label.
    """
    state = _STATES.get(text.strip().casefold())
    if state is None:
        raise ValueError(
            f"is {text[:40]!r}: write 1 or present, 0 or absent, or leave the cell empty if it is "
            "unknown"
        )
    return state


def known_labels(labels: Mapping[str, str]) -> dict[str, LabelState]:
    """Return the labels (class name -> word) without the unknown ones, which nobody has to store.

    Raises:
        ValueError: a word is not one of ``LabelState``.
    """
    for name, word in labels.items():
        if word not in _WORDS:
            raise ValueError(f"{name!r} is labelled {word!r}, not present, absent or unknown")
    states = {name: LabelState(word) for name, word in labels.items()}
    return {name: state for name, state in states.items() if state != LabelState.UNKNOWN}


def label_codes(labels: Mapping[str, str], class_names: Sequence[str]) -> tuple[int, ...]:
    """Return a code per class, -1, 0 or 1, in order; a class that ``labels`` lacks has -1."""
    known = known_labels(labels)
    return tuple(_CODES[known.get(name, LabelState.UNKNOWN)] for name in class_names)


def labels_in_words(codes: Sequence[int], class_names: Sequence[str]) -> dict[str, LabelState]:
    """Return the labels of codes, -1, 0 or 1, by class name; unknown ones are left out."""
    words = {code: state for state, code in _CODES.items() if code != UNKNOWN}
    pairs = zip(class_names, codes, strict=True)
    return {name: words[code] for name, code in pairs if code != UNKNOWN}


def class_pixels(mask: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    """Count the pixels of each class in a mask of any shape: (C,). Ignored pixels do not count."""
    # 256 bins also hold 255, the ignored pixels, which the slice drops.
    return np.bincount(mask.ravel(), minlength=256)[:num_classes]


def present_classes(
    counts: Sequence[int] | NDArray[np.int64], min_pixels: int | Sequence[int] = 1
) -> NDArray[np.bool_]:
    """Tell for each class whether an image shows it, by at least ``min_pixels`` pixels.

    ``counts`` (..., C) are the pixels of each class, and the answer has the same shape.
    ``min_pixels`` is one number, or one for each class. This is the only rule by which masks or
    predictions become image-level labels.
    """
    present: NDArray[np.bool_] = np.asarray(counts) >= np.asarray(min_pixels)
    return present


def labels_of_mask(
    counts: Sequence[int] | NDArray[np.int64],
    min_pixels: int | Sequence[int] = 1,
    unannotated: Collection[int] | None = None,
) -> tuple[int, ...]:
    """Return the label, -1, 0 or 1, of each class for a mask with these numbers of pixels.

    A mask that ignores every pixel says nothing: all classes are unknown. So is a class that is one
    of ``unannotated``, unless the mask shows it.
    """
    if not any(counts):
        return (UNKNOWN,) * len(counts)
    missed = [UNKNOWN if number in (unannotated or ()) else ABSENT for number in range(len(counts))]
    shown = present_classes(counts, min_pixels)
    return tuple(PRESENT if each else other for each, other in zip(shown, missed, strict=True))
