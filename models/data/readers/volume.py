"""Cut a volume into sections, a slab at a time.

Legend: Z, Y, X the axes of a volume; a section cut along z shows (Y, X), along y (Z, X), along x
(Z, Y).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import DTypeLike

from models.data.readers.limits import Array, ImageError, check_size, native
from models.data.readers.stack import Ask, ReadOptions, Stack

SLAB_BYTES = 256 << 20
"""The memory that a slab of several sections may take."""

_SHOWN = ((1, 2), (0, 2), (0, 1))
"""The axes that a section shows, by the axis along which it is cut."""

Slices = tuple[slice, slice, slice]
VoxelSize = tuple[float | None, float | None, float | None]
"""Nanometres along (z, y, x); None where a file does not say them."""


@dataclass(frozen=True)
class Volume:
    """The pixels (Z, Y, X) of a file, decoded where they are asked for.

    ``read`` returns the pixels of a window, in its shape. ``chunks`` (z, y, x) are the sizes below
    which nothing is decoded: a window that ends on their borders decodes each of them once.
    """

    shape: tuple[int, int, int]
    dtype: DTypeLike
    chunks: tuple[int, int, int]
    read: Callable[[Slices], Array]
    voxel_nm: VoxelSize = (None, None, None)
    notes: tuple[str, ...] = ()


def stack_of(volume: Volume, ask: Ask) -> Stack:
    """Return the sections of a volume along the axis, and in the range, that ``ask`` names.

    Raises:
        ImageError: the sections are too large, or there is none in that range.
    """
    axis = "zyx".index(ask.options.axis)
    check_sections(volume.shape, volume.dtype, ask)
    down, across = _SHOWN[axis]
    numbers = chosen(volume.shape[axis], ask.options)
    height_nm, width_nm = volume.voxel_nm[down], volume.voxel_nm[across]
    known = None if height_nm is None or width_nm is None else (height_nm, width_nm)
    sections = _sections(volume, axis, numbers)
    num_bytes = _section_bytes(volume, axis)
    return Stack(sections, len(numbers), known, volume.notes, num_bytes)


def check_sections(shape: tuple[int, int, int], dtype: DTypeLike, ask: Ask) -> None:
    """Raise ImageError for a volume (Z, Y, X) whose sections are too large, or cannot be cut so."""
    axis = "zyx".index(ask.options.axis)
    if axis and shape[0] == 1:
        raise ImageError(f"holds one section, which cannot be cut along {ask.options.axis}")
    down, across = _SHOWN[axis]
    check_size((shape[down], shape[across]), ask.max_pixels, dtype)


def chosen(num_sections: int, options: ReadOptions) -> range:
    """Return the numbers of the sections from start to stop, by step.

    Raises:
        ImageError: there is none.
    """
    numbers = range(num_sections)[options.start : options.stop : options.step]
    if not numbers:
        raise ImageError(
            f"has {num_sections} sections along {options.axis}, and none of them from "
            f"{options.start} to {options.stop or num_sections}"
        )
    return numbers


def _sections(volume: Volume, axis: int, numbers: range) -> Iterator[Array]:
    thickness = _thickness(volume, axis)
    for _, group in groupby(numbers, lambda number: number // thickness):
        members = list(group)
        window = [slice(0, length) for length in volume.shape]
        window[axis] = slice(members[0], members[-1] + 1)
        slab = np.moveaxis(volume.read((window[0], window[1], window[2])), axis, 0)
        for number in members:
            yield native(np.ascontiguousarray(slab[number - members[0]]))
        del slab  # before the next one is read


def _thickness(volume: Volume, axis: int) -> int:
    """Return the sections of a slab: as many as a chunk has, if memory allows it.

    Along y and x it is more: each slab goes through the whole file.
    """
    allowed, chunk = max(1, SLAB_BYTES // _section_bytes(volume, axis)), volume.chunks[axis]
    if allowed < chunk:
        return allowed
    return chunk if axis == 0 else allowed // chunk * chunk


def _section_bytes(volume: Volume, axis: int) -> int:
    down, across = _SHOWN[axis]
    return np.dtype(volume.dtype).itemsize * volume.shape[down] * volume.shape[across]
