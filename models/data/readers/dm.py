"""Read Gatan's DM3 and DM4 files: the image, not its thumbnail.

They are read here, because the reader that others use, RosettaSciIO, is under the GPL, brings Dask,
Pint and a dozen more packages, and bounds neither tags nor arrays.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import BinaryIO

import numpy as np

from models.data.readers.choice import the_array
from models.data.readers.dm_tags import Block, Tags, read_tags
from models.data.readers.limits import ImageError
from models.data.readers.pixel_size import pixel_nm
from models.data.readers.raw import RawArray
from models.data.readers.stack import Ask, Stack
from models.data.readers.volume import stack_of

_DTYPES = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 14: "u1"}
_COLOURS = 23  # the data type of thumbnails


@contextmanager
def open_dm(stream: BinaryIO, ask: Ask) -> Iterator[Stack]:
    """Open the sections of a DM3 or DM4 file, with the size of a pixel by its calibration."""
    num_bytes = stream.seek(0, 2)
    tags, order = read_tags(stream, num_bytes)
    number = the_array(_images(tags), ask)
    image = ("ImageList", number, "ImageData")
    kind, data = tags.get((*image, "DataType")), tags.get((*image, "Data"))
    if kind not in _DTYPES:
        raise ImageError(f"has pixels of the data type {kind}, which is not read: save it as TIFF")
    lengths = _lengths(tags, image)
    dtype = np.dtype(order + _DTYPES[int(kind)])
    if not isinstance(data, Block) or data.num_bytes < prod(lengths) * dtype.itemsize:
        raise ImageError("is damaged: it has fewer pixels than it declares")
    array = RawArray(stream, data.offset, lengths, dtype)
    sizes = [_size_nm(tags, image, axis) for axis in (2, 1, 0)]
    yield stack_of(array.volume(num_bytes, ask, (sizes[0], sizes[1], sizes[2])), ask)


def _images(tags: Tags) -> list[str]:
    """Return the numbers of the images that are no thumbnails."""
    numbers = {path[1] for path in tags if path[0] == "ImageList" and path[2:3] == ("ImageData",)}
    thumbnails = {
        str(value) for path, value in tags.items() if path[::2] == ("Thumbnails", "ImageIndex")
    }
    kept = numbers - thumbnails
    if not thumbnails:
        kept = {n for n in kept if tags.get(("ImageList", n, "ImageData", "DataType")) != _COLOURS}
    return sorted(kept or numbers)


def _lengths(tags: Tags, image: tuple[str, ...]) -> tuple[int, int, int]:
    """Return the shape (Z, Y, X); the file counts the axes from the fastest."""
    lengths: list[int] = []
    while isinstance(length := tags.get((*image, "Dimensions", str(len(lengths)))), int):
        lengths.append(length)
    if len(lengths) not in (2, 3):
        raise ImageError(f"has {len(lengths)} axes: save it as an image or a stack of images")
    if len(lengths) == 3 and str(_calibration(tags, image, 2, "Units")).strip() in ("eV", "keV"):
        raise ImageError("holds spectra, no images: save one image of it")
    return (lengths[2] if len(lengths) == 3 else 1), lengths[1], lengths[0]


def _calibration(tags: Tags, image: tuple[str, ...], axis: int, fact: str) -> object:
    return tags.get((*image, "Calibrations", "Dimension", str(axis), fact))


def _size_nm(tags: Tags, image: tuple[str, ...], axis: int) -> float | None:
    scale = _calibration(tags, image, axis, "Scale")
    unit = _calibration(tags, image, axis, "Units")
    if not isinstance(scale, int | float) or not isinstance(unit, str):
        return None
    return pixel_nm(scale, unit)
