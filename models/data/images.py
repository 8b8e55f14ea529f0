"""Reads micrographs and masks: PNG, TIFF and Zarr. Nothing is guessed; what is wrong is said.

A file holds one section (H, W) or a stack of sections (N, H, W). The declared size is checked
before a pixel is decoded, so that a small file cannot unpack into more memory than allowed.
"""

import errno
import io
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
import zarr
import zarr.errors
import zarr.storage
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

IMAGE_DTYPES = ("uint8", "uint16")
SUFFIXES = (".png", ".tif", ".tiff", ".zarr", ".zarr.zip", ".zip")
_GREY_MODES = {"L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16}

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked against the header instead

_MAX_CHUNKS = 1 << 16  # of one section: each costs a look-up, whether it is stored or not

Array = NDArray[np.generic]


class ImageError(ValueError):
    """What is wrong with an image, in words for its owner."""


def section_name(file_name: str) -> str:
    """File name without folders and known suffix: what images and masks are paired by."""
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
        max_pixels: largest H * W accepted.
        indexed: read the palette indices of a PNG, as masks are often saved. The indices of a
            micrograph would be no grey values.

    Raises:
        ImageError: not one of these formats, damaged, not grey, or too large.
    """
    try:
        if isinstance(file, Path) and file.is_dir():
            yield from _zarr_sections(zarr.storage.LocalStore(file, read_only=True), max_pixels)
            return
        with file.open("rb") if isinstance(file, Path) else file as stream:
            yield from _stream_sections(stream, max_pixels, indexed)
    except ImageError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
    except (UnidentifiedImageError, tifffile.TiffFileError, zipfile.BadZipFile) as error:
        raise ImageError(f"not a readable PNG, TIFF or Zarr: {error}") from error
    except (zarr.errors.BaseZarrError, SyntaxError, EOFError, KeyError) as error:
        raise ImageError(f"damaged: {error}") from error
    except (ArithmeticError, struct.error, zlib.error) as error:
        raise ImageError(f"damaged: {error}") from error
    except (OSError, ValueError, TypeError, RuntimeError, IndexError) as error:
        # Decoders answer damaged bytes with all of these; none of them is a fault of the service.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's failure, not the file's; a seek to a damaged place is EINVAL
        raise ImageError(f"damaged or not supported: {error}") from error


def decode_image(data: bytes, max_pixels: int) -> Array:
    """Decode exactly one grey (H, W) uint8 or uint16 image; ImageError says what is wrong."""
    sections = read_sections(io.BytesIO(data), max_pixels)
    first = next(sections, None)
    if first is None or next(sections, None) is not None:
        raise ImageError("holds no image" if first is None else "holds more than one image")
    return check_image(first)


def check_image(section: Array) -> Array:
    """Return the micrograph if its dtype is uint8 or uint16; ImageError otherwise."""
    if section.dtype.name not in IMAGE_DTYPES:
        raise ImageError(f"has dtype {section.dtype.name}; images are uint8 or uint16")
    return section


def check_mask(
    section: Array, shape: tuple[int, int], num_classes: int, ignore_value: int
) -> NDArray[np.uint8]:
    """Return the mask as uint8 class indices with 255 for ignored pixels.

    Raises:
        ImageError: not integers, another size than its image, or a class id out of range.
    """
    if section.shape != shape:
        raise ImageError(f"is {_size(section.shape)}, its image is {_size(shape)}")
    if section.dtype == bool:
        section = section.astype(np.uint8)
    if not np.issubdtype(section.dtype, np.integer):
        raise ImageError(f"has dtype {section.dtype.name}; masks are integers")
    values = np.unique(section)
    outside = [int(v) for v in values if v != ignore_value and not 0 <= v < num_classes]
    if outside:
        shown = ", ".join(map(str, outside[:5])) + (", ..." if len(outside) > 5 else "")
        raise ImageError(
            f"has class id {shown}; the classes are 0 to {num_classes - 1}, ignored {ignore_value}"
        )
    return np.where(section == ignore_value, 255, section).astype(np.uint8)


def png_bytes(image: Array) -> bytes:
    """Encode (H, W) uint8 or uint16 as PNG; level 1, since encoding can outlast inference."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _stream_sections(stream: BinaryIO, max_pixels: int, indexed: bool) -> Iterator[Array]:
    magic = stream.read(8)
    stream.seek(0)
    if magic[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        yield from _tiff_sections(stream, max_pixels)
    elif magic[:4] == b"PK\x03\x04":
        yield from _zip_sections(stream, max_pixels)
    elif magic == b"\x89PNG\r\n\x1a\n":
        yield _read_png(stream, max_pixels, indexed)
    else:
        raise ImageError("is not a PNG, a TIFF or a zipped Zarr array")


def _read_png(stream: BinaryIO, max_pixels: int, indexed: bool) -> Array:
    with Image.open(stream, formats=("PNG",)) as image:
        _check_size((image.height, image.width), max_pixels)
        if image.mode in ("P", "1") and (indexed or _has_grey_palette(image)):
            return np.asarray(image, dtype=np.uint8)
        if image.mode not in _GREY_MODES:
            raise ImageError(f"is a {image.mode} picture; convert it to one grey channel")
        return np.asarray(image).astype(_GREY_MODES[image.mode])


def _has_grey_palette(image: Image.Image) -> bool:
    palette = image.getpalette() or []
    return palette != [] and palette == [value // 3 for value in range(len(palette))]


def _tiff_sections(stream: BinaryIO, max_pixels: int) -> Iterator[Array]:
    # Named, because tifffile cannot cope with the missing name of an uploaded file.
    with tifffile.TiffFile(stream, name="section") as tiff:
        for page in tiff.pages:
            if not isinstance(page, tifffile.TiffPage):
                page = page.aspage()
            if page.samplesperpixel != 1:
                raise ImageError(f"has {page.samplesperpixel} channels; convert it to one")
            if page.imagedepth != 1 or len(page.shape) != 2:
                raise ImageError(f"has pages of shape {page.shape}; sections are (H, W)")
            _check_size((page.imagelength, page.imagewidth), max_pixels)
            if page.is_tiled:
                _check_chunk((page.tilelength, page.tilewidth), max_pixels)
            yield _native(page.asarray())


def _zip_sections(stream: BinaryIO, max_pixels: int) -> Iterator[Array]:
    # Read in place: nothing is extracted, so no member can be written outside a folder.
    with tempfile.NamedTemporaryFile(suffix=".zip") as copy:
        while chunk := stream.read(1 << 20):
            copy.write(chunk)
        copy.flush()
        zipfile.ZipFile(copy.name).close()  # a damaged one is an error here, not within Zarr
        store = zarr.storage.ZipStore(copy.name, mode="r", read_only=True)
        try:
            yield from _zarr_sections(store, max_pixels)
        finally:
            store.close()


def _zarr_sections(
    store: zarr.storage.LocalStore | zarr.storage.ZipStore, max_pixels: int
) -> Iterator[Array]:
    try:
        array = zarr.open_array(store, mode="r")
    except (FileNotFoundError, zarr.errors.BaseZarrError, ValueError) as error:
        raise ImageError("is not a Zarr array (its root must be one array, not a group)") from error
    if array.ndim not in (2, 3):
        raise ImageError(f"is a Zarr array of shape {array.shape}; (H, W) or (N, H, W) is read")
    _check_size((array.shape[-2], array.shape[-1]), max_pixels)
    _check_chunk(array.chunks, max_pixels)
    rows, cols = (-(-array.shape[axis] // array.chunks[axis]) for axis in (-2, -1))
    if rows * cols > _MAX_CHUNKS:
        raise ImageError(f"has {rows * cols} chunks to a section; make them larger")
    if array.ndim == 2:
        yield _native(np.asarray(array[:]))
        return
    for index in range(array.shape[0]):
        yield _native(np.asarray(array[index]))


def _native(section: Array) -> Array:
    """In this machine's byte order: equal pixels are to have equal bytes."""
    return section.astype(section.dtype.newbyteorder("="), copy=False)


def _check_chunk(chunk: tuple[int, ...], max_pixels: int) -> None:
    if prod(chunk) > 4 * max_pixels:  # one chunk is decoded as a whole
        raise ImageError(f"has chunks of {_size(chunk)}; chunk it section by section")


def _check_size(shape: tuple[int, int], max_pixels: int) -> None:
    if min(shape) < 1:
        raise ImageError(f"is empty: {_size(shape)}")
    if shape[0] * shape[1] > max_pixels:
        raise ImageError(f"is {_size(shape)}, more than {max_pixels} pixels; cut it into parts")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) + " px"
