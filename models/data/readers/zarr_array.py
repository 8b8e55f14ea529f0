"""Open Zarr arrays, of version 2 or 3, at a place or in a zip file, as stacks.

Legend: Z, Y, X the axes of a volume.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from models.data.readers.boxes import Box
from models.data.readers.limits import Array, ImageError, check_chunk, check_dtype, check_size
from models.data.readers.places import Place
from models.data.readers.stack import Ask, Stack
from models.data.readers.volume import Slices, Volume, chosen, stack_of
from models.data.readers.zarr_chunks import Tally
from models.data.readers.zarr_nodes import Chosen, choose
from models.data.readers.zip_place import ZipPlace

_MAX_CHUNKS = 1 << 19
_FEW_STORED = 0.75


@contextmanager
def open_zarr(place: Place, ask: Ask, tally: Tally | None = None) -> Iterator[Stack]:
    """Open the Zarr array of a place, or the one that ``ask`` chooses, as sections (H, W).

    ``tally`` is added to while sections are read.
    """
    found = choose(place, ask)
    if tally is not None:
        found = replace(found, array=replace(found.array, tally=tally))
    yield stack_of(_volume(found, ask), ask)


@contextmanager
def open_zarr_zip(stream: BinaryIO, ask: Ask) -> Iterator[Stack]:
    """Open a zipped Zarr array. It is read in place, and nothing is extracted."""
    with open_zarr(ZipPlace(stream), ask) as stack:
        yield stack


def _volume(found: Chosen, ask: Ask) -> Volume:
    """Return the volume of an array whose metadata say no more than ``ask`` allows."""
    layout, cut = found.array.layout, ask.options.axis
    check_dtype(layout.dtype, mask=ask.purpose == "mask")
    dtype = np.dtype(np.float32) if layout.dtype == np.float16 else layout.dtype
    sides = dict(zip(found.axes, layout.shape, strict=True))
    if "y" not in sides or "x" not in sides:
        raise ImageError(f"has the axes {', '.join(found.axes)}: a volume needs y and x")
    shape = (sides.get("z", 1), sides["y"], sides["x"])
    if shape[0] == 0:
        raise ImageError("holds no image: its array is empty")
    height, width = (side for side, name in zip(shape, "zyx", strict=True) if name != cut)
    check_size((height, width), ask.max_pixels, layout.dtype)
    for values in (layout.dtype, layout.packing.dtype):
        check_chunk(layout.chunk, ask.max_pixels, values)
    fixed = _channel(found, ask)
    chunks = dict(zip(found.axes, found.array.chunk, strict=True))

    def box_of(window: Slices) -> Box:
        of_axis = dict(zip("zyx", window, strict=True)) | fixed
        return tuple(of_axis[axis] for axis in found.axes)

    def read(window: Slices) -> Array:
        box = found.array.read(box_of(window))
        order = [found.axes.index(axis) for axis in "zyx" if axis in found.axes]
        others = [n for n in range(box.ndim) if n not in order]
        seen = box.transpose(*others, *order).reshape([s.stop - s.start for s in window])
        return seen.astype(dtype, copy=False)

    box = box_of(_window(shape, ask))
    return Volume(
        shape,
        dtype,
        (chunks.get("z", 1), chunks["y"], chunks["x"]),
        read,
        found.voxel_nm,
        (*found.notes, *_notes(found, box, ask)),
    )


def _window(shape: tuple[int, int, int], ask: Ask) -> Slices:
    """Return what the sections that are read have of a volume."""
    axis = "zyx".index(ask.options.axis)
    numbers = chosen(shape[axis], ask.options)
    window = [slice(0, side) for side in shape]
    window[axis] = slice(numbers[0], numbers[-1] + 1)
    return window[0], window[1], window[2]


def _channel(found: Chosen, ask: Ask) -> dict[str, slice]:
    """Return the number along each axis that is none of space; ImageError if it is not said."""
    shape = found.array.layout.shape
    others = {
        n: side for n, side in zip(found.axes, shape, strict=True) if n not in ("z", "y", "x")
    }
    several = {name: side for name, side in others.items() if side != 1}
    fixed = dict.fromkeys(others, slice(0, 1))
    if not several:
        return fixed
    said = " and ".join(f"{side} along its axis {name}" for name, side in several.items())
    names = ", ".join(name for name in found.channels if name)
    said += f" ({names})" if names and "c" in several else ""
    if len(several) > 1:
        raise ImageError(f"holds several volumes, {said}: save one of them")
    (axis, side), number = *several.items(), ask.options.channel
    if number is None:
        raise ImageError(f"holds several volumes, {said}: choose one in reading.channel")
    if number >= side:
        raise ImageError(f"has {side} channels, and none with the number {number}")
    return fixed | {axis: slice(number, number + 1)}


def _notes(found: Chosen, box: Box, ask: Ask) -> Iterator[str]:
    """Check how many chunks are looked up, and tell if few of them are stored."""
    number = found.array.num_chunks(box)
    if number > _MAX_CHUNKS:
        raise ImageError(
            f"has {number} chunks in what is read, and {_MAX_CHUNKS} are allowed: write it with "
            "larger ones"
        )
    if ask.purpose == "mask":
        return  # most programs leave out chunks of background
    stored = found.array.stored(box)
    if stored == 0:
        raise ImageError(
            "holds no pixels: none of the chunks that its metadata name is there. Copy it again"
        )
    if stored is not None and stored < _FEW_STORED:
        yield (
            f"lacks {1 - stored:.0%} of its chunks; their pixels are {found.array.layout.fill}, as "
            "its format wants it. Was it copied in part?"
        )
