"""Check micrographs and masks that were read; decode and encode single images."""

import io

import numpy as np
from PIL import Image

from models.data.domain import normalise
from models.data.readers.formats import open_stack
from models.data.readers.limits import Array, ImageError, check_dtype
from models.data.readers.stack import Ask


def decode_image(data: bytes, max_pixels: int) -> Array:
    """Decode a file that holds one grey image (H, W), of one of ``limits.IMAGE_DTYPES``.

    Raises:
        ImageError: as ``open_stack`` and ``check_image``, or the file holds more than one section.
    """
    with open_stack(io.BytesIO(data), Ask(max_pixels)) as stack:
        if stack.num_sections != 1:
            raise ImageError(f"is a stack of {stack.num_sections} sections: send one section")
        (section,) = stack.sections
    return check_image(section)


def check_image(section: Array) -> Array:
    """Return the micrograph (H, W), whose dtype has to be one of ``limits.IMAGE_DTYPES``.

    Raises:
        ImageError: it has another dtype, or values that are no numbers.
    """
    check_dtype(section.dtype, mask=False)
    if section.dtype.kind != "f":
        return section
    finite = np.isfinite(section)
    if not finite.all():
        row, column = divmod(int(np.argmin(finite)), section.shape[1])
        raise ImageError(
            f"holds {section.size - np.count_nonzero(finite)} values that are no numbers (NaN) or "
            f"infinite, the first at row {row}, column {column}: replace them"
        )
    return section


def shown(image: Array, window: tuple[float, float]) -> Array:
    """Return an image that PNG can hold: uint8 and uint16 as they are, others by their window."""
    if image.dtype.name in ("uint8", "uint16"):
        return image
    return (normalise(image, window) * 255).round().astype(np.uint8)


def png_bytes(image: Array) -> bytes:
    """Encode (H, W) uint8 or uint16 as PNG, at level 1: encoding can outlast inference."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
