"""Read a box of a Zarr array: each chunk in it is looked up and unpacked once.

A chunk that is not stored holds the array's fill value, by the format.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import prod
from threading import Lock

import numpy as np

from models.data.readers.boxes import Box, overlap, touched
from models.data.readers.limits import Array, ImageError
from models.data.readers.places import LocalPlace, Place
from models.data.readers.zarr_codecs import Packing
from models.data.readers.zarr_metadata import ArrayLayout
from models.data.readers.zip_place import ZipPlace

_LOCAL_THREADS, _REMOTE_THREADS = 4, 16  # a remote server answers late, but many at once
_UNPACKED_BYTES = 256 << 20  # of all threads together
_MAX_SHARD_BYTES = 1 << 30
_MAX_LOCAL_KEYS, _MAX_REMOTE_KEYS = 1 << 20, 1 << 15  # a thousand of them take a request
_NOT_STORED = 2**64 - 1


@dataclass
class Tally:
    """Counts what reading took: requests, bytes as they are stored, and bytes when unpacked.

    ``not_stored`` holds the numbers, along the axes, of the files that do not exist.
    """

    requests: int = 0
    bytes_read: int = 0
    bytes_unpacked: int = 0
    not_stored: set[tuple[int, ...]] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def add(self, data: bytes | None) -> None:
        with self._lock:
            self.requests += 1
            self.bytes_read += len(data or b"")

    def lacks(self, at: tuple[int, ...]) -> None:
        with self._lock:
            self.not_stored.add(at)

    def unpacked(self, chunk: Array) -> None:
        with self._lock:
            self.bytes_unpacked += chunk.nbytes


@dataclass(frozen=True)
class ZarrArray:
    """A Zarr array at a place. ``tally`` counts what is read of it."""

    place: Place
    layout: ArrayLayout
    tally: Tally = field(default_factory=Tally)

    @property
    def chunk(self) -> tuple[int, ...]:
        """The sides of what is best read as a whole.

        A file inside of a zip file cannot be read in parts, unless one unpacks all before them.
        """
        whole = isinstance(self.place, ZipPlace)
        return self.layout.file_shape if whole else self.layout.chunk

    def num_chunks(self, box: Box) -> int:
        """Return the number of chunks that a box touches."""
        sides = zip(box, self.layout.chunk, strict=True)
        return prod(len(touched(each, side)) for each, side in sides)

    def read(self, box: Box) -> Array:
        """Return the values of a box, in its shape and the array's dtype.

        Raises:
            ImageError: a chunk is damaged or cannot be read.
        """
        out = np.empty([each.stop - each.start for each in box], self.layout.dtype)
        grid = [touched(*pair) for pair in zip(box, self.layout.file_shape, strict=True)]
        read = self._shard if self.layout.shards else self._chunk
        calls = (partial(read, at, box, out) for at in itertools.product(*grid))
        _in_threads(min(self._num_threads(), prod(map(len, grid))), calls)
        return out

    def stored(self, box: Box) -> float | None:
        """Return the share of a box' files that are stored; None if that takes long to tell."""
        local = isinstance(self.place, LocalPlace | ZipPlace)
        keys = self.place.keys(_MAX_LOCAL_KEYS if local else _MAX_REMOTE_KEYS)
        if keys is None:
            return None
        grid = [touched(*pair) for pair in zip(box, self.layout.file_shape, strict=True)]
        found = sum(self.layout.key(at) in keys for at in itertools.product(*grid))
        return found / max(1, prod(map(len, grid)))

    def _num_threads(self) -> int:
        most = _REMOTE_THREADS
        if isinstance(self.place, LocalPlace | ZipPlace):
            most = min(_LOCAL_THREADS, os.cpu_count() or 1)
        return max(1, min(most, _UNPACKED_BYTES // max(1, self.layout.packing.num_bytes)))

    def _chunk(self, at: tuple[int, ...], box: Box, out: Array) -> None:
        data = self.place.read(self.layout.key(at), self.layout.packing.max_packed_bytes)
        self.tally.add(data)
        if data is None:
            self.tally.lacks(at)
        self._put(at, data, box, out)

    def _put(self, at: tuple[int, ...], data: bytes | None, box: Box, out: Array) -> None:
        """Unpack a chunk, and copy what lies in the box."""
        source, target = overlap(at, self.layout.chunk, box)
        if data is None:
            out[target] = self.layout.fill
            return
        chunk = self.layout.packing.unpack(data)
        self.tally.unpacked(chunk)
        out[target] = chunk[source]

    def _shard(self, at: tuple[int, ...], box: Box, out: Array) -> None:
        shards = self.layout.shards
        assert shards is not None
        key = self.layout.key(at)
        within = tuple(
            slice(max(0, each.start - n * side), min(side, each.stop - n * side))
            for each, n, side in zip(box, at, shards.shape, strict=True)
        )
        inner = [touched(*pair) for pair in zip(within, shards.chunk, strict=True)]
        part = self._part_of(key, all(map(is_most, inner, shards.grid)))
        index = self._index(part, key)
        if index is None:
            self.tally.lacks(at)
            source, target = overlap(at, shards.shape, box)
            out[target] = self.layout.fill
            return
        for where in itertools.product(*inner):
            first, length = (int(number) for number in index[where])
            chunk = tuple(n * k + i for n, k, i in zip(at, shards.grid, where, strict=True))
            if first == length == _NOT_STORED:
                self._put(chunk, None, box, out)
                continue
            if length > self.layout.packing.max_packed_bytes:
                raise ImageError(f"has a chunk in {key} of {length} bytes: it is damaged")
            data = part(first, length)
            if data is None or len(data) < length:
                raise ImageError(f"has a file {key} that ends before its last chunk")
            self._put(chunk, data, box, out)

    def _part_of(self, key: str, whole: bool) -> Callable[[int, int], bytes | None]:
        """Return what reads a part of a shard: out of memory if the ``whole`` shard is needed."""
        shards, packing = self.layout.shards, self.layout.packing
        assert shards is not None
        limit = prod(shards.grid) * packing.max_packed_bytes + shards.index.num_bytes + 4
        if not whole or limit > _MAX_SHARD_BYTES:

            def part(start: int, length: int) -> bytes | None:
                data = self.place.read_part(key, start, length)
                self.tally.add(data)
                return data

            return part
        stored = self.place.read(key, limit)
        self.tally.add(stored)

        def cut(start: int, length: int) -> bytes | None:
            if stored is None:
                return None
            first = start if start >= 0 else max(0, len(stored) + start)
            return stored[first : first + length]

        return cut

    def _index(self, part: Callable[[int, int], bytes | None], key: str) -> Array | None:
        """Return the index of a shard (..., 2) uint64; None if there is no such shard."""
        shards = self.layout.shards
        assert shards is not None
        packing: Packing = shards.index
        length = packing.max_packed_bytes
        data = part(0 if shards.index_first else -length, length)
        if data is None:
            return None
        if len(data) < length:
            raise ImageError(f"has a file {key} that is shorter than its index: it is damaged")
        return packing.unpack(data)


def is_most(part: range, whole: int) -> bool:
    """Tell whether so much of a side of a shard is needed that the shard is read as a whole."""
    return 2 * len(part) > whole


def _in_threads(number: int, calls: Iterator[Callable[[], None]]) -> None:
    """Make all calls, ``number`` at a time; the first error ends them."""
    if number < 2:
        for call in calls:
            call()
        return
    lock = Lock()

    def work() -> None:
        while True:
            with lock:
                call = None if failed else next(calls, None)
            if call is None:
                return
            try:
                call()
            except BaseException:
                failed.append(True)
                raise

    failed: list[bool] = []
    with ThreadPoolExecutor(number) as pool:
        for result in [pool.submit(work) for _ in range(number)]:
            result.result()
