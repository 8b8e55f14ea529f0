"""Check micrographs and masks that were read; decode and encode single images."""

import io

import numpy as np
from PIL import Image

from models.data.readers.formats import open_stack
from models.data.readers.limits import Array, ImageError, in_words
from models.data.readers.stack import Ask

IMAGE_DTYPES = ("uint8", "uint16")

_ZIP = b"PK\x03\x04"


def decode_image(data: bytes, max_pixels: int) -> Array:
    """Decode a PNG or TIFF that holds one grey image (H, W) uint8 or uint16.

    Raises:
        ImageError: as ``open_stack`` and ``check_image``, or there is not exactly one image.
    """
    if data.startswith(_ZIP):
        raise ImageError("is a zip file: send one PNG or TIFF")
    with open_stack(io.BytesIO(data), Ask(max_pixels)) as stack:
        first, second = next(stack.sections, None), next(stack.sections, None)
    if first is None or second is not None:
        held = "no image" if first is None else "more than one image"
        raise ImageError(f"holds {held}: send a PNG or TIFF with one")
    return check_image(first)


def check_image(section: Array) -> Array:
    """Return the micrograph, whose dtype has to be uint8 or uint16.

    Raises:
        ImageError: it has another dtype.
    """
    if section.dtype.name not in IMAGE_DTYPES:
        raise ImageError(
            f"has the dtype {section.dtype.name}: convert it to grey values of uint8 or uint16"
        )
    return section


def check_mask_size(mask: Array, shape: tuple[int, int]) -> None:
    """Raise ImageError for a mask that has not the size (H, W) of its image."""
    if mask.shape != shape:
        raise ImageError(
            f"is {in_words(mask.shape)} and its image is {in_words(shape)}: both need the same size"
        )


def png_bytes(image: Array) -> bytes:
    """Encode (H, W) uint8 or uint16 as PNG, at level 1: encoding can outlast inference."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
