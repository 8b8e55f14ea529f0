"""The bounds of sizes that all formats share, and the words for sizes beyond them."""

import zlib
from math import prod

import numpy as np
from numpy.typing import NDArray

SLACK = 1 << 16
"""The bytes that a header takes, or the padding that some writers leave."""

Array = NDArray[np.generic]


class ImageError(ValueError):
    """An image cannot be used; the message follows its name and tells its owner why."""


def native(section: Array) -> Array:
    """Return the section in this machine's byte order, so that equal pixels have equal bytes."""
    return section.astype(section.dtype.newbyteorder("="), copy=False)


def check_chunk(chunk: tuple[int, ...], max_pixels: int) -> None:
    """Raise ImageError for a chunk of more pixels than four sections may have."""
    if prod(chunk) > 4 * max_pixels:  # one chunk is decoded as a whole
        raise ImageError(f"has chunks of {in_words(chunk)}: write it with a chunk for each section")


def check_size(shape: tuple[int, int], max_pixels: int) -> None:
    """Raise ImageError for a section (H, W) that is empty, or has more pixels than allowed."""
    if min(shape) < 1:
        raise ImageError(f"is empty: its size is {in_words(shape)}")
    if shape[0] * shape[1] > max_pixels:
        raise ImageError(
            f"is {in_words(shape)}, which is more than {max_pixels} pixels: cut it into parts"
        )


def in_words(shape: tuple[int, ...]) -> str:
    """Return a shape as 40 x 56 px."""
    return " x ".join(map(str, shape)) + " px"


def inflated_bytes(data: bytes, limit: int) -> int:
    """Count the bytes that zlib would unpack into; ``limit`` + 1 stands for any number above."""
    return len(zlib.decompressobj().decompress(data, limit + 1))
