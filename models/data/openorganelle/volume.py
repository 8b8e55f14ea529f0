"""One array of a volume: boxes of its voxels, and the files that hold them."""

import json
from collections.abc import Iterator, Sequence
from itertools import product
from math import lcm, prod
from typing import Any, Literal

import numpy as np
import zarr
import zarr.errors

from models.data.openorganelle.geometry import Box, Grid, Shape
from models.data.openorganelle.multiscale import Attributes, Level, VolumeError, zyx
from models.data.openorganelle.store import WatchedStore
from models.data.readers.limits import Array, ImageError

_CHUNK_BYTES = 1 << 29
Slices = tuple[slice, slice, slice]


class Tree:
    """A Zarr hierarchy of version 2 or 3 at a place."""

    def __init__(self, store: WatchedStore) -> None:
        self.store = store
        self.zarr_format = self._detected()

    def attributes(self, key: str) -> Attributes | None:
        """Return the attributes of a group; None if there is no such group, or it has none.

        Raises:
            VolumeError: they are no JSON object.
        """
        if self.zarr_format == 2:
            return self._json(f"{key}/.zattrs")
        group = self._json(f"{key}/zarr.json")
        attributes = None if group is None else group.get("attributes")
        return attributes if isinstance(attributes, dict) else None

    def volume(self, key: str, level: Level) -> "Volume":
        """Open the array of a level of the multiscale group ``key``.

        Raises:
            VolumeError: there is no such array, or it is not of the form that is read.
        """
        path = f"{key}/{level.path}"
        try:
            array = zarr.open_array(self.store, path=path, mode="r", zarr_format=self.zarr_format)
        except FileNotFoundError as error:
            raise VolumeError(f"has no array {level.path}, which its metadata name") from error
        except ImageError:
            raise
        except (zarr.errors.BaseZarrError, ValueError, KeyError, TypeError) as error:
            raise VolumeError(f"has an array {level.path} that cannot be read: {error}") from error
        return Volume(self.store, path, array, level)

    def _detected(self) -> Literal[2, 3]:
        if self._json("zarr.json") is not None:
            return 3
        if self._json(".zgroup") is not None or self._json(".zattrs") is not None:
            return 2
        raise VolumeError("is no Zarr hierarchy, or needs a password")

    def _json(self, key: str) -> dict[str, object] | None:
        data = self.store.metadata(key)
        if data is None:
            return None
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise VolumeError(f"has a file {key} that is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise VolumeError(f"has a file {key} that is no JSON object")
        return found


class Volume:
    """An array of a volume, in z, y, x whatever the order of its own axes."""

    def __init__(self, store: WatchedStore, key: str, array: zarr.Array[Any], level: Level) -> None:
        if array.ndim != 3:
            raise VolumeError(
                f"has an array {level.path} of shape {array.shape}: three axes are read"
            )
        if array.dtype.kind not in "ui":
            raise VolumeError(f"has an array {level.path} of {array.dtype}: integers are read")
        self.key = key
        self.level = level
        self.dtype: np.dtype[np.generic] = array.dtype
        self.attributes: Attributes = dict(array.attrs)
        self.grid = Grid(zyx(array.shape, level.axes), level.voxel_nm, level.centre_nm)
        self.chunk: Shape = zyx(array.chunks, level.axes)
        self.file: Shape = zyx(array.shards or array.chunks, level.axes)
        """The shape of the part of the array that one file holds."""
        if prod(self.chunk) * array.dtype.itemsize > _CHUNK_BYTES:
            raise VolumeError(f"has chunks of {self.chunk} voxels, which are too large to read")
        self._store = store
        self._array = array

    def read(self, box: Box) -> tuple[Array, dict[str, Slices]]:
        """Return the voxels (Z, Y, X) of a box, and the files that do not exist with their parts.

        Raises:
            ImageError: a file is damaged, or the place does not answer.
        """
        self._store.not_found.clear()
        selected = self._own_order([slice(a, b) for a, b in zip(box.start, box.stop, strict=True)])
        try:
            values = np.asarray(self._array[tuple(selected)])
        except ImageError:
            raise
        except (RuntimeError, ValueError, TypeError, OSError, KeyError) as error:
            raise VolumeError(f"has a damaged file near {box}: {error}") from error
        holes = {
            key: _inside(box, number, self.file)
            for number, key in self.files(box)
            if key in self._store.not_found
        }
        return np.transpose(values, self.level.axes), holes

    def files(self, box: Box) -> Iterator[tuple[Shape, str]]:
        """Yield the number along each axis, and the key, of each file that a box touches."""
        for z, y, x in product(*_touched(box, self.file)):
            number = tuple(self._own_order([z, y, x]))
            yield (z, y, x), f"{self.key}/{self._array.metadata.encode_chunk_key(number)}"

    def size_of(self, key: str) -> int | None:
        """Return the bytes of a file; None if it does not exist."""
        return self._store.place.size(key)

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

    def _own_order(self, values: Sequence[Any]) -> list[Any]:
        """Return values for z, y, x in the order of the array's own axes."""
        order = self.level.axes
        return [values[order.index(axis)] for axis in range(3)]


def _touched(box: Box, size: Shape) -> list[range]:
    sides = zip(box.start, box.stop, size, strict=True)
    return [range(first // side, -(-stop // side)) for first, stop, side in sides]


def _inside(box: Box, place: Shape, size: Shape) -> Slices:
    """Return the part of a box's own voxels that a file holds."""
    z, y, x = (
        slice(max(number * side - first, 0), min((number + 1) * side - first, extent))
        for number, side, first, extent in zip(place, size, box.start, box.shape, strict=True)
    )
    return z, y, x
