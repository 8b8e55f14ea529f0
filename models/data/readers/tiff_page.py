"""Decode one page of a TIFF into a grey section, within bounds that its directory declares.

Legend: H height, W width, S samples of a pixel.
"""

from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
import tifffile

from models.data.readers.limits import (
    Array,
    ImageError,
    check_chunk,
    check_dtype,
    check_look_ups,
    check_size,
    native,
    read_as,
)
from models.data.readers.pixels import UPRIGHT, grey_of, shown_by_palette, turned
from models.data.readers.stack import Ask

_JPEG = 7
# Each of these decoders is told how many bytes it may write.
_COMPRESSIONS = {
    1: "none",
    5: "LZW",
    _JPEG: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    34926: "ZSTD",
    50000: "ZSTD",
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_ORIENTATION, _PHOTOMETRIC, _COLOR_MAP = 274, 262, 320


@dataclass(frozen=True)
class PageHeader:
    """The section that a page will decode to: its shape (H, W) as it is shown, and its dtype."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    sideways: bool
    notes: tuple[str, ...]


class PageReader:
    """Checks pages before they are decoded, and makes grey sections (H, W) of them."""

    def __init__(self, ask: Ask, num_bytes: int) -> None:
        self._ask = ask
        self._num_bytes = num_bytes
        self._channel = ask.options.channel
        self._header: PageHeader | None = None

    def room(self, page: tifffile.TiffPage) -> int:
        """Return how many planes fit into the file from where the page's pixels begin."""
        if page.compression != 1 or not page.is_contiguous or not page.dataoffsets:
            return 1
        plane = self._plane_bytes(page)
        return (self._num_bytes - page.dataoffsets[0]) // plane if plane else 1

    def check(self, page: tifffile.TiffPage, *, one_channel: bool) -> PageHeader:
        """Return what the sections will be; all later pages have to be alike.

        ``one_channel`` is false where planes are channels: then none is chosen among samples.

        Raises:
            ImageError: the page cannot be read, or is too large.
        """
        if not one_channel or (page.samplesperpixel == 1 and self._ask.purpose == "mask"):
            self._channel = None
        elif page.samplesperpixel == 1 and self._channel:
            raise ImageError(f"holds one channel, and none with the number {self._channel}")
        self._header = self._check(page)
        return self._header

    def read(self, page: tifffile.TiffPage) -> Array:
        """Decode a page (H, W).

        Raises:
            ImageError: it is damaged, has colours, or is not like the first page.
        """
        self._like_first(page)
        self._check_segments(page)
        return self._shown(page, page.asarray())

    def read_behind(self, page: tifffile.TiffPage, plane: int) -> Array:
        """Read the plane (H, W) with that number, counted from where the page's pixels begin."""
        self._like_first(page)
        size = self._plane_bytes(page)
        file = page.parent.filehandle
        file.seek(page.dataoffsets[0] + plane * size)
        data = file.read(size)
        if len(data) < size:
            raise ImageError("is cut off")
        assert page.dtype is not None
        pixels = np.frombuffer(data, page.dtype.newbyteorder(page.parent.byteorder))
        return self._shown(page, pixels.reshape(page.shape))

    def _plane_bytes(self, page: tifffile.TiffPage) -> int:
        return prod(page.shape) * (page.dtype.itemsize if page.dtype else 0)

    def _like_first(self, page: tifffile.TiffPage) -> None:
        header = self._check(page)
        assert self._header is not None
        if (header.shape, header.dtype) != (self._header.shape, self._header.dtype):
            raise ImageError(
                f"holds pages of different kinds: one is {header.shape} {header.dtype}, the first "
                f"is {self._header.shape} {self._header.dtype}"
            )

    def _check(self, page: tifffile.TiffPage) -> PageHeader:
        if page.dtype is None:
            raise ImageError(f"has {page.bitspersample} bits a sample: save it with 8, 16 or 32")
        if page.imagedepth != 1:
            raise ImageError("holds pages that are volumes: save each section as a page")
        mask, samples = self._ask.purpose == "mask", page.samplesperpixel
        check_dtype(page.dtype, mask=mask)
        shape = (page.imagelength, page.imagewidth)
        check_size(shape, self._ask.max_pixels, page.dtype, samples)
        self._check_kind(page)
        if page.is_tiled:
            tile = (page.tilelength, page.tilewidth)
            check_chunk(tile, self._ask.max_pixels, page.dtype, samples)
        sideways = page.tags.valueof(_ORIENTATION, UPRIGHT) >= 5
        notes: tuple[str, ...] = ()
        if samples > 1 and self._channel is None:
            notes = (f"is stored in {samples} channels, which are read as one grey channel",)
        dtype = read_as(page.dtype)
        if page.photometric == _PALETTE and not mask:
            dtype = np.dtype(np.uint8)
        return PageHeader(shape[::-1] if sideways else shape, dtype, sideways, notes)

    def _check_kind(self, page: tifffile.TiffPage) -> None:
        """Refuse compressions and colours that are not read."""
        if page.compression not in _COMPRESSIONS:
            name = getattr(page.compression, "name", page.compression)
            known = ", ".join(sorted(set(_COMPRESSIONS.values())))
            raise ImageError(f"is compressed by {name}: save it with one of {known}")
        if page.samplesperpixel == 1:
            known_kinds = [_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE]
        else:
            known_kinds = [_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB]
            if page.compression == _JPEG:
                known_kinds.append(_YCBCR)
        if page.photometric not in known_kinds:
            name = getattr(page.photometric, "name", page.photometric)
            raise ImageError(f"has the colours {name}: convert it to one grey channel")
        if page.samplesperpixel > 1 and self._channel is None and not _is_colour(page):
            raise ImageError(
                f"holds {page.samplesperpixel} channels: name one in reading.channel, from 0"
            )

    def _check_segments(self, page: tifffile.TiffPage) -> None:
        """Refuse strips and tiles that are missing, too many, or larger than they declare."""
        num_segments = _num_segments(page)
        check_look_ups(num_segments, "strips or tiles")
        offsets, counts = page.dataoffsets, page.databytecounts
        if min(len(offsets), len(counts)) < num_segments:
            raise ImageError("is damaged: it lacks strips or tiles")
        ends = [start + count for start, count in zip(offsets, counts, strict=False)]
        if min(counts) < 1 or min(offsets) < 1 or max(ends) > self._num_bytes:
            raise ImageError("is cut off: it lacks the pixels of some strips or tiles")
        if page.compression == 1:
            bits = prod(page.shape) * int(np.max(page.bitspersample))
            if 8 * sum(counts) < bits:
                raise ImageError("is cut off: it has fewer pixels than it declares")
        if page.compression == _JPEG:
            self._check_jpegs(page)

    def _check_jpegs(self, page: tifffile.TiffPage) -> None:
        rows, cols = min(page.rowsperstrip, page.imagelength), page.imagewidth
        if page.is_tiled:
            rows, cols = page.tilelength, page.tilewidth
        file = page.parent.filehandle
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            file.seek(offset)
            height, width = _jpeg_size(file.read(count))
            if height > rows or width > cols:
                raise ImageError("has strips or tiles that unpack into more pixels than they say")

    def _shown(self, page: tifffile.TiffPage, pixels: Array) -> Array:
        """Return the section (H, W) as viewers show it, of the samples (H, W, S) or (H, W)."""
        if page.samplesperpixel > 1:
            samples = pixels if page.planarconfig == 1 else np.moveaxis(pixels, 0, -1)
            pixels = grey_of(samples, alpha=_has_alpha(page), channel=self._channel)
        if page.photometric == _PALETTE and self._ask.purpose == "image":
            pixels = _by_color_map(page, pixels)
        elif page.photometric == _WHITE_IS_ZERO and _PHOTOMETRIC in page.tags:
            pixels = _negative(pixels, int(np.max(page.bitspersample)))
        return turned(native(pixels), page.tags.valueof(_ORIENTATION, UPRIGHT))


def _num_segments(page: tifffile.TiffPage) -> int:
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    if not page.is_tiled:
        return planes * ceil(page.imagelength / max(1, min(page.rowsperstrip, page.imagelength)))
    down = ceil(page.imagelength / max(1, page.tilelength))
    return planes * down * ceil(page.imagewidth / max(1, page.tilewidth))


def _is_colour(page: tifffile.TiffPage) -> bool:
    """Tell whether samples are the colours of one picture, with or without opacity."""
    if page.photometric in (_RGB, _YCBCR):
        return page.samplesperpixel in (3, 4)
    return page.samplesperpixel == 2 and _has_alpha(page)


def _has_alpha(page: tifffile.TiffPage) -> bool:
    if page.photometric == _RGB and page.samplesperpixel == 4:
        return True  # some writers do not say what the fourth sample is
    return page.samplesperpixel == 2 and page.extrasamples[:1] in ((1,), (2,))


def _by_color_map(page: tifffile.TiffPage, indices: Array) -> Array:
    color_map = page.tags.valueof(_COLOR_MAP)  # (3, entries) uint16
    if not isinstance(color_map, np.ndarray) or indices.dtype.kind != "u":
        raise ImageError("is damaged: it lacks its palette")
    palette = (color_map.T >> 8).astype(np.uint8)
    return shown_by_palette(indices.astype(np.uint16), palette)


def _negative(pixels: Array, bits: int) -> Array:
    if pixels.dtype.kind == "u":
        return np.subtract((1 << bits) - 1, pixels, dtype=pixels.dtype)
    if pixels.dtype.kind == "f":
        return np.negative(pixels)
    return np.invert(pixels)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the size (H, W) that a JPEG declares; it has to be baseline, as in TIFF it must be."""
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in (0xC0, 0xC1, 0xC3):
            height = int.from_bytes(data[position + 5 : position + 7], "big")
            return height, int.from_bytes(data[position + 7 : position + 9], "big")
        if 0xC2 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            raise ImageError("has JPEGs that are not baseline: save it with deflate or LZW")
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise ImageError("is damaged: its strips or tiles are no JPEGs")
