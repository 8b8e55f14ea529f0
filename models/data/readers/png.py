"""Read PNG files by Pillow."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import Image

from models.data.readers.limits import Array, ImageError, check_size
from models.data.readers.stack import Ask, Stack

_GREY_MODES = {"L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16}

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked against the header instead


@contextmanager
def open_png(stream: BinaryIO, ask: Ask) -> Iterator[Stack]:
    """Open the one section of a PNG; palette indices where the palette is grey, or for a mask."""
    with Image.open(stream, formats=("PNG",)) as image:
        check_size((image.height, image.width), ask.max_pixels)
        yield Stack(iter([_pixels(image, ask)]), 1)


def _pixels(image: Image.Image, ask: Ask) -> Array:
    if image.mode in ("P", "1") and (ask.purpose == "mask" or _has_grey_palette(image)):
        return np.asarray(image, dtype=np.uint8)
    if image.mode not in _GREY_MODES:
        raise ImageError(f"is a {image.mode} picture: convert it to one grey channel")
    return np.asarray(image).astype(_GREY_MODES[image.mode])


def _has_grey_palette(image: Image.Image) -> bool:
    palette = image.getpalette() or []
    return palette != [] and palette == [value // 3 for value in range(len(palette))]
