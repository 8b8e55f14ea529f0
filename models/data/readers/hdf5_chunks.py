"""Unpack the chunks of a dataset of an HDF5 file, each never into more bytes than it declares."""

from itertools import product
from math import prod
from typing import Any, BinaryIO

import imagecodecs
import numpy as np

from models.data.readers.boxes import Box, overlap, touched
from models.data.readers.limits import Array, ImageError, check_look_ups
from models.data.readers.zarr_codecs import Packing

_DEFLATE, _SHUFFLE, _FLETCHER, _LZF, _BLOSC, _ZSTD = 1, 2, 3, 32000, 32001, 32015
_COMPRESSORS = {_DEFLATE: "zlib", _BLOSC: "blosc", _ZSTD: "zstd"}
_CHECKSUM_BYTES = 4


class Chunks:
    """The pixels of a dataset, read by boxes. ``sides`` are those of a chunk.

    ``stream`` is the dataset's file, and ``num_bytes`` are the bytes that it has.

    Raises:
        ImageError: the dataset is packed in a way that is not read, or lacks pixels.
    """

    def __init__(self, dataset: Any, stream: BinaryIO, num_bytes: int) -> None:
        self._dataset = dataset
        self._stream = stream
        self._properties = dataset.id.get_create_plist()
        self._filters = [
            self._properties.get_filter(n)[0] for n in range(self._properties.get_nfilters())
        ]
        self._chunked = dataset.chunks is not None
        self.sides: tuple[int, ...] = dataset.chunks or (1, *dataset.shape[1:])
        if prod(dataset.shape) and not dataset.id.get_storage_size():
            raise ImageError("holds no pixels: its dataset was made and never written")
        if self._chunked:
            self._check_filters()
            self._check_type()
        else:
            self._check_end(num_bytes)

    def read(self, box: Box) -> Array:
        """Return the values of a box of the dataset, in its dtype."""
        if not self._chunked:
            whole: Array = self._dataset[box]
            return whole
        grid = [touched(part, side) for part, side in zip(box, self.sides, strict=True)]
        check_look_ups(prod(map(len, grid)), "chunks")
        out = np.empty([part.stop - part.start for part in box], self._dataset.dtype)
        for at in product(*grid):
            source, target = overlap(at, self.sides, box)
            chunk = self._chunk(at)
            out[target] = self._dataset.fillvalue if chunk is None else chunk[source]
        return out

    def _check_filters(self) -> None:
        known = {_SHUFFLE, _FLETCHER, _LZF, *_COMPRESSORS}
        for number, code in enumerate(self._filters):
            if code not in known:
                name = self._properties.get_filter(number)[3] or str(code).encode()
                raise ImageError(
                    f"is packed by {name.decode('latin-1')[:50]}, which is not read: save it with "
                    "gzip, lzf, blosc or zstd, or with none"
                )
        if len(set(self._filters)) < len(self._filters):
            raise ImageError("is packed by the same filter twice: save it with it once")

    def _check_type(self) -> None:
        """Refuse numbers that h5py would convert, such as those of 24 bits: chunks are read raw."""
        from h5py import h5t

        if h5t.py_create(self._dataset.dtype, logical=True) != self._dataset.id.get_type():
            raise ImageError("stores its numbers in an unusual way: save it by h5py")

    def _check_end(self, num_bytes: int) -> None:
        begin, size = self._dataset.id.get_offset(), self._dataset.id.get_storage_size()
        needed = prod(self._dataset.shape) * self._dataset.dtype.itemsize
        if size < needed or (begin is not None and begin + size > num_bytes):
            raise ImageError("is cut off: it has fewer pixels than it declares")

    def _chunk(self, at: tuple[int, ...]) -> Array | None:
        """Return a chunk's values; None for one that is not stored, which holds the fill value."""
        place = tuple(number * side for number, side in zip(at, self.sides, strict=True))
        stored = self._dataset.id.get_chunk_info_by_coord(place)
        if stored.byte_offset is None:
            return None
        packing = Packing(self.sides, self._dataset.dtype)
        if stored.size > 2 * packing.num_bytes + (1 << 16):
            raise ImageError(f"has a chunk of {stored.size} bytes: it is damaged")
        # Read here, because the library trusts the size that it finds, and writes beyond memory.
        self._stream.seek(stored.byte_offset)
        data = self._stream.read(stored.size)
        skipped = stored.filter_mask
        used = [code for bit, code in enumerate(self._filters) if not skipped >> bit & 1]
        return self._unpacked(data, used, packing)

    def _unpacked(self, data: bytes, used: list[int], packing: Packing) -> Array:
        if used and used[-1] == _FLETCHER:  # the checksum was taken last, of what is stored
            data, told = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
            if imagecodecs.h5checksum_fletcher32(data) != int.from_bytes(told, "little"):
                raise ImageError("has chunks whose checksum is wrong: they are damaged")
            used = used[:-1]
        shuffled = self._dataset.dtype.itemsize if _SHUFFLE in used else 0
        packers = [code for code in used if code != _SHUFFLE]
        if len(packers) > 1 or _FLETCHER in packers or (shuffled and used[0] != _SHUFFLE):
            raise ImageError("is packed by filters in an order that is not read: save it with gzip")
        if packers == [_LZF]:
            data, packers = bytes(imagecodecs.lzf_decode(data, out=packing.num_bytes)), []
        compressor = _COMPRESSORS[packers[0]] if packers else ""
        return Packing(
            packing.shape, packing.dtype, shuffled_bytes=shuffled, compressor=compressor
        ).unpack(data)
