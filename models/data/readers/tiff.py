"""Read TIFF files by tifffile: uncompressed, deflate or PackBits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import tifffile

from models.data.readers.limits import (
    SLACK,
    Array,
    ImageError,
    check_chunk,
    check_size,
    inflated_bytes,
    native,
)
from models.data.readers.stack import Ask, Stack

_NONE, _PACKBITS, _DEFLATE = 1, 32773, (8, 32946)


@contextmanager
def open_tiff(stream: BinaryIO, ask: Ask) -> Iterator[Stack]:
    """Open the pages of a TIFF, each a grey section (H, W)."""
    # Named, because tifffile cannot cope with the missing name of an uploaded file.
    with tifffile.TiffFile(stream, name="section") as tiff:
        yield Stack(_sections(tiff, ask.max_pixels), len(tiff.pages))


def _sections(tiff: tifffile.TiffFile, max_pixels: int) -> Iterator[Array]:
    for page in tiff.pages:
        if not isinstance(page, tifffile.TiffPage):
            page = page.aspage()
        if page.samplesperpixel != 1:
            raise ImageError(f"has {page.samplesperpixel} channels: convert it to one")
        if page.imagedepth != 1 or len(page.shape) != 2:
            raise ImageError(f"has pages of shape {page.shape}: a page is one section (H, W)")
        check_size((page.imagelength, page.imagewidth), max_pixels)
        if page.is_tiled:
            check_chunk((page.tilelength, page.tilewidth), max_pixels)
        _check_segments(page)
        yield native(page.asarray())


def _check_segments(page: tifffile.TiffPage) -> None:
    """Refuse strips and tiles that would unpack into more pixels than they declare."""
    if page.compression == _NONE:
        return
    if page.compression not in (*_DEFLATE, _PACKBITS):
        name = getattr(page.compression, "name", page.compression)
        raise ImageError(f"is compressed by {name}: save it with deflate, packbits or none")
    rows, cols = min(page.rowsperstrip, page.imagelength), page.imagewidth
    if page.is_tiled:
        rows, cols = page.tilelength, page.tilewidth
    limit = rows * cols * max(1, page.bitspersample // 8) + SLACK
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        page.parent.filehandle.seek(offset)
        data = page.parent.filehandle.read(count)
        packed = page.compression == _PACKBITS
        if (_packbits_bytes(data) if packed else inflated_bytes(data, limit)) > limit:
            raise ImageError("has strips or tiles that unpack into more pixels than they declare")


def _packbits_bytes(data: bytes) -> int:
    """Count the bytes that PackBits would unpack: a run has two bytes, a literal its length."""
    position = total = 0
    while position < len(data):
        head = data[position]
        total += 257 - head if head > 128 else head + 1 if head < 128 else 0
        position += 2 if head > 128 else head + 2 if head < 128 else 1
    return total
