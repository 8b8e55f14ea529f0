"""One array of a volume: boxes of its voxels, and the files that hold them."""

from collections.abc import Iterator, Sequence
from itertools import product
from math import lcm, prod
from typing import Any

import numpy as np

from models.data.openorganelle.geometry import Box, Grid, Shape
from models.data.openorganelle.multiscale import Attributes, Level, VolumeError, zyx
from models.data.readers.limits import Array
from models.data.readers.places import Place
from models.data.readers.zarr_chunks import ZarrArray
from models.data.readers.zarr_metadata import read_node

_CHUNK_BYTES = 1 << 29
Slices = tuple[slice, slice, slice]


def attributes_of(place: Place) -> Attributes | None:
    """Return the attributes of a Zarr group; None if there is none at this place.

    Raises:
        ImageError: they cannot be read.
    """
    node = read_node(place)
    return None if node is None or node.array is not None else node.attributes


class Volume:
    """The array of a level of a multiscale, in z, y, x whatever the order of its own axes.

    ``key`` is the path of the multiscale in the hierarchy ``root``. ``lost`` holds the keys of
    files that should exist and do not, as far as anyone found out.
    """

    def __init__(self, root: Place, key: str, level: Level) -> None:
        self.key = f"{key}/{level.path}"
        self.level = level
        self.lost: set[str] = set()
        node = read_node(root.at(self.key))
        if node is None or node.array is None:
            raise VolumeError(f"has no array {level.path}, which its metadata name")
        layout = node.array
        if len(layout.shape) != 3:
            raise VolumeError(f"has an array {level.path} of {len(layout.shape)} axes, not three")
        if layout.dtype.kind not in "ui":
            raise VolumeError(f"has an array {level.path} of {layout.dtype}: integers are read")
        if layout.packing.num_bytes > _CHUNK_BYTES:
            raise VolumeError(f"has chunks of {layout.chunk} voxels, which are too large to read")
        self.attributes: Attributes = node.attributes
        self.dtype: np.dtype[Any] = layout.dtype
        self.grid = Grid(zyx(layout.shape, level.axes), level.voxel_nm, level.centre_nm)
        self.chunk: Shape = zyx(layout.chunk, level.axes)
        self.file: Shape = zyx(layout.file_shape, level.axes)
        """The shape of the part of the array that one file holds."""
        self._array = ZarrArray(root.at(self.key), layout)

    @property
    def num_bytes_read(self) -> int:
        """The bytes that were read of the array so far."""
        return self._array.tally.bytes_read

    def read(self, box: Box) -> tuple[Array, dict[str, Slices]]:
        """Return the voxels (Z, Y, X) of a box, and the files that do not exist with their parts.

        Raises:
            ImageError: a file is damaged, or the place does not answer.
        """
        missing = self._array.tally.not_stored
        missing.clear()
        sides = zip(box.start, box.stop, strict=True)
        values = self._array.read(tuple(self._own_order([slice(*side) for side in sides])))
        holes = {}
        for at in sorted(missing):
            number = zyx(at, self.level.axes)
            holes[self._key(number)] = _inside(box, number, self.file)
        return np.transpose(values, self.level.axes), holes

    def files(self, box: Box) -> Iterator[Shape]:
        """Yield the number along each axis of each file that a box touches."""
        yield from product(*_touched(box, self.file))

    def size_of(self, number: Shape) -> int | None:
        """Return the bytes of a file; None if it does not exist."""
        at = tuple(self._own_order(number))
        return self._array.place.size(self._array.layout.key(at))

    def num_files(self, box: Box) -> int:
        """Return how many files a box touches."""
        return prod(map(len, _touched(box, self.file)))

    def num_chunks(self, box: Box) -> int:
        """Return how many chunks a box touches: files, or in shards the parts of files."""
        return prod(map(len, _touched(box, self.chunk)))

    def slabs(self, box: Box, multiple: int = 1) -> Iterator[Box]:
        """Yield the parts of a box, along z, by which each chunk is read once.

        They begin at multiples of ``multiple``, as the box does, and end there unless it does not.
        """
        depth = lcm(self.chunk[0], multiple)
        start = box.start[0]
        while start < box.stop[0]:
            stop = min(start - start % depth + depth, box.stop[0])
            yield Box((start, *box.start[1:]), (stop - start, *box.shape[1:]))
            start = stop

    def _key(self, number: Shape) -> str:
        return f"{self.key}/{self._array.layout.key(tuple(self._own_order(number)))}"

    def _own_order(self, values: Sequence[Any]) -> list[Any]:
        """Return values for z, y, x in the order of the array's own axes."""
        order = self.level.axes
        return [values[order.index(axis)] for axis in range(3)]


def _touched(box: Box, size: Shape) -> list[range]:
    sides = zip(box.start, box.stop, size, strict=True)
    return [range(first // side, -(-stop // side)) for first, stop, side in sides]


def _inside(box: Box, number: Shape, size: Shape) -> Slices:
    """Return the part of a box's own voxels that a file holds."""
    z, y, x = (
        slice(max(each * side - first, 0), min((each + 1) * side - first, extent))
        for each, side, first, extent in zip(number, size, box.start, box.shape, strict=True)
    )
    return z, y, x
