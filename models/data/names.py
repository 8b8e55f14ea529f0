"""Names of files as people mean them: their order, their spelling, and what systems leave behind.

Two names that look alike may be spelt with other characters: ``é`` is one character on one system
and two on another. Unicode calls the first spelling NFC, and all names here are brought to it.
"""

import re
import unicodedata

from models.data.readers.formats import section_name

_LEFT_BY_SYSTEMS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"}
_MASK_ENDING = re.compile(
    r"[ ._-]+(masks?|labels?|segmentations?|segmented|segm|seg|annotations?|annotated|anno"
    r"|ground[ _-]?truth|gt|classes|truth|semantic)$",
    re.IGNORECASE,
)
_IMAGE_ENDING = re.compile(r"[ ._-]+(raw|images?|img|em|sem|tem|grey|gray)$", re.IGNORECASE)
_NUMBER = re.compile("([0-9]+)")


def normal(name: str) -> str:
    """Return a name in the spelling in which equal-looking names are equal (Unicode's NFC)."""
    return unicodedata.normalize("NFC", name)


def stem(file_name: str) -> str:
    """Return a file's name without folders and known suffix, in NFC."""
    return normal(section_name(file_name))


def section_names(stem: str, number: int) -> list[str]:
    """Return the names of the sections of an image: its stem, in a stack with a number after it."""
    return [stem] if number == 1 else [f"{stem}/{n:04d}" for n in range(number)]


def natural_key(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Return a key that sorts numbers in names by their value: img_2 comes before img_10."""
    parts = _NUMBER.split(normal(name))
    # Text and numbers alternate, so equal places hold equal kinds.
    key = tuple(_value(part) if n % 2 else (0, part) for n, part in enumerate(parts))
    return key, name


def _value(digits: str) -> tuple[int, str]:
    """Return a key that sorts numbers by value, however long: int() refuses thousands of digits."""
    significant = digits.lstrip("0")
    return len(significant), significant


def left_by_system(name: str) -> bool:
    """Tell whether an operating system left this file or folder beside the user's own.

    Such are dot files (.DS_Store, ._a.png), Thumbs.db, desktop.ini and all of __MACOSX.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part != "."]
    return any(part.startswith(".") or part.casefold() in _LEFT_BY_SYSTEMS for part in parts)


def without_mask_ending(stem: str) -> str:
    """Return a mask's stem without an ending that says that it is one: img_1_mask is img_1."""
    return _MASK_ENDING.sub("", stem) or stem


def without_image_ending(stem: str) -> str:
    """Return an image's stem without an ending that says that it is one: img_1_raw is img_1."""
    return _IMAGE_ENDING.sub("", stem) or stem
