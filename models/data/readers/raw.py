"""Read arrays whose pixels lie one after another in a file.

Legend: Z, Y, X the axes of the volume; "stored" is the order in which they lie in the file, the
slowest first.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np

from models.data.readers.limits import Array, ImageError, check_chunk, check_dtype, read_as
from models.data.readers.stack import Ask
from models.data.readers.volume import Slices, Volume, VoxelSize, check_sections

_AXES = "zyx"


@dataclass(frozen=True)
class RawArray:
    """An array in a file: where it begins, its dtype, and its axes as stored.

    ``stored`` holds the letters z, y and x from the slowest to the fastest axis, and ``shape``
    their lengths in the same order.
    """

    stream: BinaryIO
    offset: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    stored: str = _AXES

    def volume(
        self, num_bytes: int, ask: Ask, voxel_nm: VoxelSize, notes: tuple[str, ...] = ()
    ) -> Volume:
        """Return the array as a volume; ``num_bytes`` are those of the file.

        Raises:
            ImageError: the dtype is not read, or the file ends before the array does.
        """
        check_dtype(self.dtype, mask=ask.purpose == "mask")
        end = self.offset + prod(self.shape) * self.dtype.itemsize
        if self.offset < 0 or min(self.shape) < 0 or end > num_bytes:
            raise ImageError(f"is cut off: it has {num_bytes} bytes, and its pixels end at {end}")
        lengths = [self.shape[self.stored.index(axis)] for axis in _AXES]
        whole = [1 if axis == self.stored[0] else n for axis, n in zip(_AXES, lengths, strict=True)]
        shape, chunks = (lengths[0], lengths[1], lengths[2]), (whole[0], whole[1], whole[2])
        check_sections(shape, self.dtype, ask)
        check_chunk(chunks, ask.max_pixels, self.dtype)
        return Volume(shape, read_as(self.dtype), chunks, self.read, voxel_nm, notes)

    def read(self, window: Slices) -> Array:
        """Return the pixels of a window (Z, Y, X)."""
        slow, middle, fast = (window[_AXES.index(axis)] for axis in self.stored)
        num_rows, row_bytes = middle.stop - middle.start, self.shape[2] * self.dtype.itemsize
        found = np.empty((slow.stop - slow.start, num_rows, fast.stop - fast.start), self.dtype)
        for index, number in enumerate(range(slow.start, slow.stop)):
            self.stream.seek(self.offset + (number * self.shape[1] + middle.start) * row_bytes)
            data = self.stream.read(num_rows * row_bytes)
            if len(data) < num_rows * row_bytes:
                raise ImageError("is cut off")
            rows = np.frombuffer(data, self.dtype).reshape(num_rows, self.shape[2])
            found[index] = rows[:, fast]
        return found.transpose([self.stored.index(axis) for axis in _AXES])


def sections_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the shape of an array of sections as (N, H, W).

    Raises:
        ImageError: it has another number of axes, or its last one seems to hold colours.
    """
    axes = shape
    while len(axes) > 3 and axes[0] == 1:
        axes = axes[1:]
    if len(axes) not in (2, 3):
        raise ImageError(f"has the shape {shape}: save it as (H, W) or (N, H, W)")
    if len(axes) == 3 and axes[2] in (2, 3, 4) and axes[1] > 4:
        raise ImageError(f"has the shape {shape}, as colours have: save one grey channel of it")
    return (1, axes[0], axes[1]) if len(axes) == 2 else (axes[0], axes[1], axes[2])
