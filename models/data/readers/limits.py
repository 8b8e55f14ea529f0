"""The bounds that all formats share, and the words for what lies beyond them.

Each is checked against what a file's header declares, before pixels are decoded.
"""

import re
import zlib
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

SLACK = 1 << 16
"""The bytes that a header takes, or the padding that some writers leave."""

PIXEL_BYTES = 4
"""The bytes that a pixel may take, on average, where a section has as many pixels as allowed."""

MAX_LOOK_UPS = 1 << 17
"""The most strips, tiles or chunks of a section: each costs a look-up, whatever it holds."""

MAX_UNPACKED_BYTES = 8 << 30
"""The bytes that any file may unpack into."""

MAX_UNPACKED_RATIO = 1024
"""The ratio up to which a file may unpack into more: deflate cannot pack any closer."""

IMAGE_DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32")
"""The dtypes of images as they are read and stored."""

Array = NDArray[np.generic]


_OBJECT = re.compile(r":? ?<[^<>]* at 0x[0-9a-f]+>")
"""Matches the name that Python gives to an object, which decoders put into their words."""


class ImageError(ValueError):
    """An image cannot be used; the message follows its name and tells its owner why."""

    def __init__(self, message: str) -> None:
        super().__init__(_OBJECT.sub("", message))


def read_as(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype in which pixels of a file's dtype are given, in this machine's byte order.

    Half floats become float32 and booleans uint8, as they hold their values exactly.
    """
    found = np.dtype(dtype)
    return np.dtype(_WIDER.get(found.name, found)).newbyteorder("=")


_WIDER = {"float16": np.float32, "bool": np.uint8}


def native(section: Array) -> Array:
    """Return the section as ``read_as`` says, so that equal pixels have equal bytes."""
    return section.astype(read_as(section.dtype), copy=False)


def check_dtype(dtype: DTypeLike, *, mask: bool) -> None:
    """Raise ImageError for a dtype that no image, or no mask, may have.

    float16 is read, as float32, because MRC files have it.
    """
    found = np.dtype(dtype)
    if mask:
        if found.kind not in "biuf" or found.itemsize > 8:
            raise ImageError(
                f"has the dtype {found.name}: a mask holds class ids, which are whole numbers"
            )
    elif found.name not in (*IMAGE_DTYPES, "float16", "bool"):
        known = ", ".join(IMAGE_DTYPES)
        raise ImageError(f"has the dtype {found.name}: save its grey values as one of {known}")


def check_chunk(
    chunk: tuple[int, ...], max_pixels: int, dtype: DTypeLike = np.uint8, samples: int = 1
) -> None:
    """Raise ImageError for a chunk of more bytes than four sections may have.

    A chunk is decoded as a whole; ``samples`` are those of one pixel.
    """
    itemsize = np.dtype(dtype).itemsize * samples
    if prod(chunk) * itemsize > 4 * PIXEL_BYTES * max_pixels or prod(chunk) > 4 * max_pixels:
        raise ImageError(f"has chunks of {in_words(chunk)}: write it with a chunk for each section")


def check_size(
    shape: tuple[int, int], max_pixels: int, dtype: DTypeLike = np.uint8, samples: int = 1
) -> None:
    """Raise ImageError for a section (H, W) that is empty, or larger than allowed.

    ``dtype`` and ``samples`` are those of its pixels as they are decoded: a section may have
    ``max_pixels`` pixels, and ``PIXEL_BYTES`` times as many bytes.
    """
    if min(shape) < 1:
        raise ImageError(f"is empty: its size is {in_words(shape)}")
    num_pixels, num_bytes = shape[0] * shape[1], PIXEL_BYTES * max_pixels
    if num_pixels > max_pixels:
        raise ImageError(
            f"is {in_words(shape)}, which is more than {max_pixels} pixels: cut it into parts"
        )
    itemsize = np.dtype(dtype).itemsize * samples
    if num_pixels * itemsize > num_bytes:
        raise ImageError(
            f"is {in_words(shape)} of {itemsize} bytes each, which is more than {num_bytes} bytes: "
            "cut it into parts"
        )


def check_look_ups(number: int, what: str) -> None:
    """Raise ImageError for a section of too many strips, tiles or chunks (``what``)."""
    if number > MAX_LOOK_UPS:
        raise ImageError(f"has {number} {what} to a section: write it with larger ones")


def check_unpacked(num_bytes: int, file_bytes: int) -> None:
    """Raise ImageError for a file that unpacks into more bytes than a file of its size may."""
    if num_bytes > max(MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * file_bytes):
        raise ImageError(
            f"has {file_bytes} bytes and unpacks into more than {num_bytes >> 30} GiB: cut it into "
            "several files"
        )


def in_words(shape: tuple[int, ...]) -> str:
    """Return a shape as 40 x 56 px."""
    return " x ".join(map(str, shape)) + " px"


def inflated_bytes(data: bytes, limit: int) -> int:
    """Count the bytes that zlib would unpack into; ``limit`` + 1 stands for any number above."""
    return len(zlib.decompressobj().decompress(data, limit + 1))
