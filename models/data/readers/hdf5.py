"""Read HDF5 files by h5py, of the extra ``hdf5``.

What h5py tells of a dataset is taken; its chunks are unpacked here, because the filters of HDF5
write as much as they find, whatever a chunk declares.

Legend: a dataset is an array in the file, with axes z, y, x, c (channels) and t (time).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from models.data.readers.boxes import Box
from models.data.readers.choice import the_array
from models.data.readers.hdf5_chunks import Chunks
from models.data.readers.hdf5_facts import axes_of, voxel_nm
from models.data.readers.limits import Array, ImageError, check_chunk, check_dtype, read_as
from models.data.readers.stack import Ask, Stack
from models.data.readers.volume import Slices, Volume, check_sections, stack_of

_MAX_OBJECTS = 10_000
_MAX_DEPTH = 32


@contextmanager
def open_hdf5(stream: BinaryIO, ask: Ask) -> Iterator[Stack]:
    """Open one of the datasets of an HDF5 file: the only one, or the one that ``path`` names."""
    try:
        import h5py
    except ImportError:
        raise ImageError(
            "is an HDF5 file, and the service reads them only where its extra hdf5 is installed: "
            "pip install 'stylefilter-service[hdf5]'"
        ) from None
    num_bytes = stream.seek(0, 2)
    stream.seek(0)
    with h5py.File(stream, "r") as file:
        found = dict(_Search(h5py).datasets(file, "", _MAX_DEPTH))
        dataset = found[the_array(list(found), ask)]
        if dataset.external is not None or dataset.is_virtual:
            raise ImageError("keeps its pixels in other files: save them in one file")
        yield stack_of(_volume(dataset, ask, Chunks(dataset, stream, num_bytes)), ask)


class _Search:
    """A search for datasets of numbers, each object once; links to other files are not followed."""

    def __init__(self, h5py: Any) -> None:
        self._h5py = h5py
        self._seen: set[int] = set()

    def datasets(self, group: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
        """Yield the datasets of a group and of the groups in it, with their paths."""
        if len(group) > _MAX_OBJECTS or not depth:
            raise ImageError("holds more groups and datasets than are searched: save one of them")
        for name in group:
            if not isinstance(group.get(name, getlink=True), self._h5py.HardLink):
                continue  # what soft links lead to is found by its own name
            object_ = group[name]
            address = self._h5py.h5o.get_info(object_.id).addr
            if address in self._seen:
                continue
            self._seen.add(address)
            if len(self._seen) > _MAX_OBJECTS:
                raise ImageError(f"holds more than {_MAX_OBJECTS} objects: save one of them")
            where = f"{path}/{name}".lstrip("/")
            if isinstance(object_, self._h5py.Group):
                yield from self.datasets(object_, where, depth - 1)
            elif isinstance(object_, self._h5py.Dataset) and _is_image(object_):
                yield where, object_


def _is_image(dataset: Any) -> bool:
    return dataset.shape is not None and len(dataset.shape) >= 2 and dataset.dtype.kind in "biufc"


def _volume(dataset: Any, ask: Ask, chunks: Chunks) -> Volume:
    check_dtype(dataset.dtype, mask=ask.purpose == "mask")
    axes = axes_of(dataset)
    sides = dict(zip(axes, dataset.shape, strict=True))
    fixed = _fixed(sides, ask)
    shape = (sides.get("z", 1), sides["y"], sides["x"])
    check_sections(shape, dataset.dtype, ask)
    check_chunk(chunks.sides, ask.max_pixels, dataset.dtype)
    chunk = dict(zip(axes, chunks.sides, strict=True))

    def read(window: Slices) -> Array:
        of_axis = dict(zip("zyx", window, strict=True)) | fixed
        box: Box = tuple(of_axis[axis] for axis in axes)
        order = [axes.index(axis) for axis in "zyx" if axis in axes]
        others = [number for number in range(len(axes)) if number not in order]
        values = chunks.read(box).transpose(*others, *order)
        return values.reshape([side.stop - side.start for side in window])

    return Volume(
        shape,
        read_as(dataset.dtype),
        (chunk.get("z", 1), chunk["y"], chunk["x"]),
        read,
        voxel_nm(dataset, axes),
    )


def _fixed(sides: dict[str, int], ask: Ask) -> dict[str, slice]:
    """Return the number along each axis that is none of space."""
    fixed = {axis: slice(0, 1) for axis in sides if axis not in "zyx"}
    several = {axis: sides[axis] for axis in fixed if sides[axis] != 1}
    if not several:
        if ask.options.channel and ask.purpose == "image":
            raise ImageError(f"holds one channel, and none with the number {ask.options.channel}")
        return fixed
    if set(several) != {"c"}:
        said = " and ".join(f"{number} along its axis {axis}" for axis, number in several.items())
        raise ImageError(f"holds several volumes, {said}: save one of them")
    channel = ask.options.channel
    if channel is None:
        raise ImageError(f"holds {several['c']} channels: name one in reading.channel, from 0")
    if channel >= several["c"]:
        raise ImageError(f"holds {several['c']} channels, and none with the number {channel}")
    return fixed | {"c": slice(channel, channel + 1)}
