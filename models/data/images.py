"""Read micrographs and masks: PNG, TIFF and Zarr. Nothing is guessed: errors say what is wrong.

A file holds one section (H, W) or a stack of sections (N, H, W). The declared size is checked
before a pixel is decoded, and no strip, tile or chunk may unpack into more than it declares, so
that a small file cannot take more memory than allowed. A file without such bounds is refused.
"""

import errno
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
import zarr.errors
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.data.readers.limits import Array, ImageError, in_words
from models.data.readers.png import read_png
from models.data.readers.tiff import tiff_sections
from models.data.readers.zarr_array import folder_sections, zip_sections

IMAGE_DTYPES = ("uint8", "uint16")
SUFFIXES = (".png", ".tif", ".tiff", ".zarr", ".zarr.zip", ".zip")

_ZIP = b"PK\x03\x04"


def section_name(file_name: str) -> str:
    """Return a file's name without folders and known suffix; it pairs an image with its mask."""
    name = file_name.replace("\\", "/").rpartition("/")[2]
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def read_sections(
    file: Path | BinaryIO, max_pixels: int, *, indexed: bool = False
) -> Iterator[Array]:
    """Yield the (H, W) sections of a file, one at a time.

    Args:
        file: a PNG, a TIFF, a zipped Zarr array, or the folder of a Zarr array.
        max_pixels: the largest H * W that is accepted.
        indexed: read the palette indices of a PNG, as masks are often saved. In a micrograph such
            indices are not grey values.

    Raises:
        ImageError: the file has another format, is damaged, is not grey, or is too large.
    """
    try:
        if isinstance(file, Path) and file.is_dir():
            yield from folder_sections(file, max_pixels)
            return
        if isinstance(file, Path) and file.exists() and not file.is_file():
            raise ImageError("is not a file")  # a pipe would never end
        with file.open("rb") if isinstance(file, Path) else file as stream:
            yield from _stream_sections(stream, max_pixels, indexed)
    except ImageError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
    except (UnidentifiedImageError, tifffile.TiffFileError, zipfile.BadZipFile) as error:
        raise ImageError(f"is not a readable PNG, TIFF or Zarr: {error}") from error
    except (zarr.errors.BaseZarrError, SyntaxError, EOFError, KeyError) as error:
        raise ImageError(f"is damaged: {error}") from error
    except (ArithmeticError, struct.error, zlib.error) as error:
        raise ImageError(f"is damaged: {error}") from error
    except (OSError, ValueError, TypeError, RuntimeError, IndexError) as error:
        # Decoders answer damaged bytes with all of these; none of them is a fault of the service.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's failure, not the file's; a seek to a damaged place is EINVAL
        raise ImageError(f"is damaged or not supported: {error}") from error


def decode_image(data: bytes, max_pixels: int) -> Array:
    """Decode a PNG or TIFF that holds one grey image (H, W) uint8 or uint16.

    Raises:
        ImageError: as ``read_sections`` and ``check_image``, or there is not exactly one image.
    """
    if data.startswith(_ZIP):
        raise ImageError("is a zip file: send one PNG or TIFF")
    sections = read_sections(io.BytesIO(data), max_pixels)
    first = next(sections, None)
    if first is None or next(sections, None) is not None:
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


def check_mask(
    section: Array, shape: tuple[int, int], num_classes: int, ignore_value: int
) -> NDArray[np.uint8]:
    """Return the mask as class ids (H, W) uint8, with 255 for ignored pixels.

    Raises:
        ImageError: it is not of integers or not of its image's size, or a class id is out of range.
    """
    if section.shape != shape:
        raise ImageError(
            f"is {in_words(section.shape)} and its image is {in_words(shape)}: both need the same "
            "size"
        )
    if section.dtype == bool:  # masks of two classes are often saved in this way
        section = section.astype(np.uint8)
    if not np.issubdtype(section.dtype, np.integer):
        raise ImageError(
            f"has the dtype {section.dtype.name}: a mask holds class ids, which are integers"
        )
    values = np.unique(section)
    outside = [int(v) for v in values if v != ignore_value and not 0 <= v < num_classes]
    if outside:
        shown = ", ".join(map(str, outside[:5])) + (", ..." if len(outside) > 5 else "")
        raise ImageError(
            f"holds the class id {shown}, which no class has: ids are 0 to {num_classes - 1}, and "
            f"{ignore_value} for ignored pixels"
        )
    return np.where(section == ignore_value, 255, section).astype(np.uint8)


def png_bytes(image: Array) -> bytes:
    """Encode (H, W) uint8 or uint16 as PNG, at level 1: encoding can outlast inference."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _stream_sections(stream: BinaryIO, max_pixels: int, indexed: bool) -> Iterator[Array]:
    magic = stream.read(8)
    stream.seek(0)
    if magic[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        yield from tiff_sections(stream, max_pixels)
    elif magic[:4] == _ZIP:
        yield from zip_sections(stream, max_pixels)
    elif magic == b"\x89PNG\r\n\x1a\n":
        yield read_png(stream, max_pixels, indexed)
    else:
        raise ImageError("is not a PNG, a TIFF or a zipped Zarr array")
