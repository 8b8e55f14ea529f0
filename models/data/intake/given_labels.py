"""Image-level labels that a caller gives for a domain in Python: by image, class and word."""

from collections.abc import Mapping, Sequence
from typing import Literal

from models.data.intake.store import StoredDomain
from models.data.labels import UNKNOWN, label_codes, labels_of_mask

Labels = Mapping[int | str, Mapping[str, str]]
"""Image-level labels: image -> class -> ``present``, ``absent`` or ``unknown``.

An image is a tile. Its key is its number, counted from 0 over all sections, the tiles of a section
row by row. A section that is not cut into tiles may be named instead.
"""

_SHOWN = 5
"""The number of names that a message shows of many."""


def given_codes(
    stored: StoredDomain,
    class_names: Sequence[str],
    labels: Labels | Literal["from_masks"] | None,
) -> list[tuple[int, ...]]:
    """Return the labels of each image: -1 (unknown), 0 (absent) or 1 (present) per class.

    Raises:
        ValueError: an image or a class is not one of the domain's, or a word is none of the three.
    """
    unknown = (UNKNOWN,) * len(class_names)
    if labels == "from_masks":
        return [
            unknown
            if tile.class_pixels is None
            else labels_of_mask(
                tile.class_pixels, unannotated=stored.sections[tile.section].unannotated
            )
            for tile in stored.tiles
        ]
    codes = [unknown] * len(stored.tiles)
    for key, words in (labels or {}).items():
        if other := words.keys() - set(class_names):
            raise ValueError(
                f"labels of image {key!r}: {min(other)!r} is not a class: the classes are "
                f"{', '.join(class_names)}"
            )
        codes[_number(stored, key)] = label_codes(words, class_names)
    return codes


def _number(stored: StoredDomain, key: int | str) -> int:
    """Return the number of the image that a key of the labels names."""
    if isinstance(key, int):
        last = len(stored.tiles) - 1
        if not 0 <= key <= last:
            raise ValueError(f"labels: there is no image {key}; the last is {last}")
        return key
    names = [stored.sections[tile.section].name for tile in stored.tiles]
    if names.count(key) > 1:
        raise ValueError(
            f"labels: section {key!r} is cut into {names.count(key)} images; label each by its "
            f"number, from {names.index(key)} on"
        )
    if key not in names:
        shown = ", ".join(repr(name) for name in dict.fromkeys(names[:_SHOWN]))
        raise ValueError(f"labels: there is no section {key!r}: sections are {shown}, ...")
    return names.index(key)
