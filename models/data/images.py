"""Reads micrographs and masks: PNG, TIFF and Zarr. Nothing is guessed; what is wrong is said.

A file holds one section (H, W) or a stack of sections (N, H, W). The declared size is checked
before a pixel is decoded, and no strip, tile or chunk may unpack into more than it declares, so
that a small file cannot take more memory than allowed. What cannot be bounded is refused.
"""

import errno
import io
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numcodecs
import numpy as np
import tifffile
import zarr
import zarr.errors
import zarr.storage
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from zarr.codecs import BytesCodec, TransposeCodec
from zarr.core.buffer import Buffer, default_buffer_prototype

IMAGE_DTYPES = ("uint8", "uint16")
SUFFIXES = (".png", ".tif", ".tiff", ".zarr", ".zarr.zip", ".zip")
_GREY_MODES = {"L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16}

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked against the header instead

_ZIP = b"PK\x03\x04"
_MAX_CHUNKS = 1 << 16  # of one section: each costs a look-up, whether it is stored or not

_SLACK = 1 << 16  # bytes: of a header, or of the padding that some writers leave
_METADATA_BYTES = 1 << 22
_ZARR_CODECS: dict[str, Any] = {
    "zlib": None,  # numcodecs would unpack it whole
    "gzip": numcodecs.GZip(),
    "zstd": numcodecs.Zstd(),
    "blosc": numcodecs.Blosc(),
    "lz4": numcodecs.LZ4(),
}
_TIFF_NONE, _TIFF_PACKBITS, _TIFF_DEFLATE = 1, 32773, (8, 32946)

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
            yield from _zarr_sections(_Members(lambda key: (file / key).open("rb")), max_pixels)
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
    """Decode exactly one grey (H, W) uint8 or uint16 PNG or TIFF; ImageError says what is wrong."""
    if data.startswith(_ZIP):
        raise ImageError("is a zip file; send one PNG or TIFF")
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
    elif magic[:4] == _ZIP:
        yield from _zip_sections(stream, max_pixels)
    elif magic == b"\x89PNG\r\n\x1a\n":
        yield _read_png(stream, max_pixels, indexed)
    else:
        raise ImageError("is not a PNG, a TIFF or a zipped Zarr array")


def _read_png(stream: BinaryIO, max_pixels: int, indexed: bool) -> Array:
    with Image.open(stream, formats=("PNG",)) as image:
        check_size((image.height, image.width), max_pixels)
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
            check_size((page.imagelength, page.imagewidth), max_pixels)
            if page.is_tiled:
                _check_chunk((page.tilelength, page.tilewidth), max_pixels)
            _check_segments(page)
            yield native(page.asarray())


def _check_segments(page: tifffile.TiffPage) -> None:
    """Refuse strips and tiles that would unpack into more pixels than they have."""
    if page.compression == _TIFF_NONE:
        return
    if page.compression not in (*_TIFF_DEFLATE, _TIFF_PACKBITS):
        name = getattr(page.compression, "name", page.compression)
        raise ImageError(f"is compressed by {name}; none, deflate and packbits are read")
    rows, cols = min(page.rowsperstrip, page.imagelength), page.imagewidth
    if page.is_tiled:
        rows, cols = page.tilelength, page.tilewidth
    limit = rows * cols * max(1, page.bitspersample // 8) + _SLACK
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        page.parent.filehandle.seek(offset)
        data = page.parent.filehandle.read(count)
        packed = page.compression == _TIFF_PACKBITS
        if (_packbits_bytes(data) if packed else _inflated_bytes(data, limit)) > limit:
            raise ImageError("has strips or tiles that unpack into more pixels than they have")


def _packbits_bytes(data: bytes) -> int:
    """How many bytes PackBits would unpack into: a run costs two bytes, a literal its length."""
    position = total = 0
    while position < len(data):
        head = data[position]
        total += 257 - head if head > 128 else head + 1 if head < 128 else 0
        position += 2 if head > 128 else head + 2 if head < 128 else 1
    return total


def _inflated_bytes(data: bytes, limit: int) -> int:
    """How many bytes zlib would unpack into, as far as it is at most ``limit``."""
    return len(zlib.decompressobj().decompress(data, limit + 1))


def _zip_sections(stream: BinaryIO, max_pixels: int) -> Iterator[Array]:
    # Read in place: nothing is extracted, so no member can be written outside a folder.
    with tempfile.NamedTemporaryFile(suffix=".zip") as copy:
        while chunk := stream.read(1 << 20):
            copy.write(chunk)
        copy.flush()
        with zipfile.ZipFile(copy.name) as archive:
            yield from _zarr_sections(_Members(lambda key: _member(archive, key)), max_pixels)


def _member(archive: zipfile.ZipFile, key: str) -> BinaryIO:
    info = archive.getinfo(key)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ImageError("is a zip file packed with another method than deflate")
    return archive.open(info)  # type: ignore[return-value]


class _Members(dict[str, Buffer]):
    """What a Zarr store holds, read when asked for, and never more of it than allowed."""

    def __init__(self, open_member: Callable[[str], BinaryIO]) -> None:
        super().__init__()
        self._open = open_member
        self._codec = ""
        self._chunk_bytes = 0

    def expect(self, codec: str, chunk_bytes: int) -> None:
        """From now on chunks are read: of so many bytes, unpacked by ``codec`` if it is named."""
        self._codec, self._chunk_bytes = codec, chunk_bytes

    def __getitem__(self, key: str) -> Buffer:
        limit = _METADATA_BYTES
        if self._chunk_bytes:
            limit = self._chunk_bytes + self._chunk_bytes // 8 + _SLACK
        try:
            with self._open(key) as stream:
                data = stream.read(limit + 1)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise KeyError(key) from error
        if len(data) > limit:
            raise ImageError(f"has a member {key} of more than {limit} bytes")
        if self._codec:
            self._check_packed(data)
        return default_buffer_prototype().buffer.from_bytes(data)

    def __contains__(self, key: object) -> bool:
        try:
            self[str(key)]
        except KeyError:
            return False
        return True

    def _check_packed(self, data: bytes) -> None:
        codec = _ZARR_CODECS[self._codec]
        if codec is None:
            if _inflated_bytes(data, self._chunk_bytes) > self._chunk_bytes:
                raise ImageError("has chunks that unpack into more pixels than they have")
            return
        try:
            codec.decode(data, out=np.empty(self._chunk_bytes, np.uint8))
        except (ValueError, RuntimeError) as error:
            raise ImageError(
                f"has chunks that are damaged, or unpack into more pixels than they have: {error}"
            ) from error


def _zarr_sections(members: _Members, max_pixels: int) -> Iterator[Array]:
    try:
        array = zarr.open_array(zarr.storage.MemoryStore(members, read_only=True), mode="r")
    except (FileNotFoundError, zarr.errors.BaseZarrError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError("is not a Zarr array (its root must be one array, not a group)") from error
    if array.ndim not in (2, 3):
        raise ImageError(f"is a Zarr array of shape {array.shape}; (H, W) or (N, H, W) is read")
    check_size((array.shape[-2], array.shape[-1]), max_pixels)
    _check_chunk(array.chunks, max_pixels)
    rows, cols = (-(-array.shape[axis] // array.chunks[axis]) for axis in (-2, -1))
    if rows * cols > _MAX_CHUNKS:
        raise ImageError(f"has {rows * cols} chunks to a section; make them larger")
    members.expect(_packed_by(array), prod(array.chunks) * array.dtype.itemsize)
    if array.ndim == 2:
        yield native(np.asarray(array[:]))
        return
    for index in range(array.shape[0]):
        yield native(np.asarray(array[index]))


def _packed_by(array: zarr.Array[Any]) -> str:
    """Name of the compressor, empty for none; ImageError if chunks could grow without bound."""
    if array.dtype.kind not in "buifc":
        raise ImageError(f"has dtype {array.dtype}; numbers are read")
    codecs = [c for c in array.filters if not isinstance(c, TransposeCodec)]
    if codecs or array.shards or not isinstance(array.serializer, BytesCodec | None):
        raise ImageError("has Zarr filters or shards; save it without")
    compressors: tuple[Any, ...] = array.compressors
    names = [getattr(c, "codec_id", None) or c.to_dict()["name"] for c in compressors]
    if len(names) > 1 or not set(names) <= _ZARR_CODECS.keys():
        listed = ", ".join(map(str, names))
        known = ", ".join(_ZARR_CODECS)
        raise ImageError(f"is compressed by {listed}; none or one of {known} is read")
    return str(names[0]) if names else ""


def native(section: Array) -> Array:
    """Return the section in this machine's byte order, that equal pixels have equal bytes."""
    return section.astype(section.dtype.newbyteorder("="), copy=False)


def _check_chunk(chunk: tuple[int, ...], max_pixels: int) -> None:
    if prod(chunk) > 4 * max_pixels:  # one chunk is decoded as a whole
        raise ImageError(f"has chunks of {_size(chunk)}; chunk it section by section")


def check_size(shape: tuple[int, int], max_pixels: int) -> None:
    """Raise ImageError for a section (H, W) that is empty, or has more pixels than allowed."""
    if min(shape) < 1:
        raise ImageError(f"is empty: {_size(shape)}")
    if shape[0] * shape[1] > max_pixels:
        raise ImageError(f"is {_size(shape)}, more than {max_pixels} pixels; cut it into parts")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) + " px"
