"""Check micrographs and masks that were read; decode and encode single images."""

import io

import numpy as np
from PIL import Image

from models.data.readers.formats import open_stack
from models.data.readers.limits import Array, ImageError, in_words
from models.data.readers.stack import Ask

_STORED_DTYPES = ("uint8", "uint16")


def decode_image(data: bytes, max_pixels: int) -> Array:
    """Decode a file that holds one grey image (H, W) uint8 or uint16.

    Raises:
        ImageError: as ``open_stack`` and ``check_image``, or the file holds more than one section.
    """
    with open_stack(io.BytesIO(data), Ask(max_pixels)) as stack:
        if stack.num_sections != 1:
            raise ImageError(f"is a stack of {stack.num_sections} sections: send one section")
        (section,) = stack.sections
    return check_image(section)


def check_image(section: Array) -> Array:
    """Return the micrograph (H, W), whose dtype has to be uint8 or uint16.

    Raises:
        ImageError: it has another dtype.
    """
    if section.dtype.name not in _STORED_DTYPES:
        known = " or ".join(_STORED_DTYPES)
        raise ImageError(f"has the dtype {section.dtype.name}: convert its grey values to {known}")
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
