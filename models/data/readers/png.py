"""Read PNG files by Pillow."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from PIL import Image

from models.data.readers.limits import Array, ImageError, check_size
from models.data.readers.pixel_size import printed_nm
from models.data.readers.pixels import UPRIGHT, grey_of, shown_by_palette, turned
from models.data.readers.stack import Ask, Stack
from models.data.readers.volume import Slices, Volume, stack_of

_ORIENTATION = 274
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked against the header instead


@dataclass(frozen=True)
class _Header:
    """The first facts of a PNG: its size as stored, its bits a sample, and its kind of colour."""

    shape: tuple[int, int]
    bits: int
    kind: int

    @property
    def samples(self) -> int:
        return _SAMPLES[self.kind]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint16 if self.bits == 16 else np.uint8)


@contextmanager
def open_png(stream: BinaryIO, ask: Ask) -> Iterator[Stack]:
    """Open the one section of a PNG; palette indices for a mask."""
    header = _header(stream)
    check_size(header.shape, ask.max_pixels, header.dtype, header.samples)
    with Image.open(stream, formats=("PNG",)) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError("is animated: save each of its pictures as a file")
        orientation = image.getexif().get(_ORIENTATION, UPRIGHT)
        height, width = header.shape[::-1] if orientation >= 5 else header.shape

        def read(window: Slices) -> Array:
            pixels = turned(_pixels(image, header, stream, ask), orientation)
            return pixels[window[1:]][None]

        yield stack_of(
            Volume(
                (1, height, width),
                header.dtype,
                (1, height, width),
                read,
                _voxel(image, sideways=orientation >= 5),
                _notes(header, ask),
            ),
            ask,
        )


def _header(stream: BinaryIO) -> _Header:
    start = stream.read(33)
    stream.seek(0)
    if len(start) < 33 or start[12:16] != b"IHDR" or start[25] not in _SAMPLES:
        raise ImageError("is damaged: its header is not that of a PNG")
    width, height = int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
    return _Header((height, width), start[24], start[25])


def _notes(header: _Header, ask: Ask) -> tuple[str, ...]:
    if header.samples == 1 or ask.options.channel is not None:
        return ()
    return (f"is stored in {header.samples} channels, which are read as one grey channel",)


def _voxel(image: Image.Image, *, sideways: bool) -> tuple[None, float | None, float | None]:
    """Return the size of a pixel by the chunk pHYs, which nearly always means a printer."""
    x, y = (printed_nm(dpi, "inch") for dpi in image.info.get("dpi", (0.0, 0.0)))
    return (None, x, y) if sideways else (None, y, x)


def _pixels(image: Image.Image, header: _Header, stream: BinaryIO, ask: Ask) -> Array:
    """Return the grey values, or class ids, (H, W) as stored, before they are turned."""
    mask = ask.purpose == "mask"
    if header.samples > 1:
        alpha = header.kind in (_GREY_ALPHA, _RGB_ALPHA)
        samples = _samples(image, header, stream)
        return grey_of(samples, alpha=alpha, channel=ask.options.channel)
    if ask.options.channel and not mask:
        raise ImageError(f"holds one channel, and none with the number {ask.options.channel}")
    pixels = np.asarray(image).astype(header.dtype, copy=False)
    if header.kind == _GREY and header.bits in (2, 4):
        pixels = pixels // (255 // ((1 << header.bits) - 1))  # Pillow stretches them to 8 bits
    if mask:
        return pixels
    _refuse_transparent(image, pixels)
    if header.kind == _PALETTE:
        palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return shown_by_palette(pixels, palette)
    return pixels


def _samples(image: Image.Image, header: _Header, stream: BinaryIO) -> Array:
    if header.bits == 16:  # Pillow would halve them
        stream.seek(0)
        found: Array = imagecodecs.png_decode(stream.read())
        return found.reshape(*header.shape, -1)
    samples = np.asarray(image)
    if header.kind == _RGB and "transparency" in image.info:
        _refuse_transparent(image, samples)
    return samples


def _refuse_transparent(image: Image.Image, pixels: Array) -> None:
    """Refuse pixels that one value, or an entry of the palette, makes transparent."""
    clear = image.info.get("transparency")
    if clear is None:
        return
    if isinstance(clear, bytes):
        opacity = np.full(256, 255, np.uint8)
        opacity[: len(clear)] = np.frombuffer(clear[:256], np.uint8)
        found = (opacity[pixels] < 255).any()
    elif isinstance(clear, tuple):
        found = (pixels == np.array(clear)).all(axis=-1).any()
    else:
        found = (pixels == clear).any()
    if found:
        raise ImageError("has transparent pixels: save it without transparency")
