"""Unpack the chunks of Zarr arrays, each once, and never into more bytes than a chunk has."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import google_crc32c
import numcodecs
import numpy as np
from numpy.typing import NDArray

from models.data.readers.limits import SLACK, Array, ImageError

_CHECKSUM_BYTES = 4
_BLOSC_HEADER_BYTES, _LZ4_HEADER_BYTES = 16, 4
_MARKS = (0xA5, 0x5A)

Bytes = NDArray[np.uint8]


def _deflated(wbits: int) -> Callable[[bytes, int], bytes]:
    """Return the unpacking of zlib or gzip; a gzip file may have several members."""

    def unpack(data: bytes, size: int) -> bytes:
        parts: list[bytes] = []
        left = size
        while data:
            member = zlib.decompressobj(wbits)
            parts.append(member.decompress(data, left + 1))
            left -= len(parts[-1])
            if left < 0:
                raise _too_long()
            if not member.eof:
                break
            data = member.unused_data
        return b"".join(parts)

    return unpack


def _sized(codec: Any, header_bytes: int, at: int) -> Callable[[bytes, int], Bytes]:
    """Return the unpacking of a codec whose header says the size, as 4 bytes at ``at``."""

    def unpack(data: bytes, size: int) -> Bytes:
        declared = int.from_bytes(data[at : at + 4], "little")
        if len(data) < header_bytes or declared < size:
            raise _too_short()
        if declared > size:
            raise _too_long()
        unpacked = np.empty(size, np.uint8)
        codec.decode(data, out=unpacked)
        return unpacked

    return unpack


def _zstd(data: bytes, size: int) -> Bytes:
    unpacked = np.empty(size, np.uint8)
    for mark in _MARKS:
        # Of too few bytes numcodecs tells nothing; then the mark at the end is still there.
        unpacked[-1:] = mark
        numcodecs.Zstd().decode(data, out=unpacked)
        if size == 0 or unpacked[-1] != mark:
            return unpacked
    raise _too_short()


_COMPRESSORS: dict[str, Callable[[bytes, int], bytes | Bytes]] = {
    "zlib": _deflated(zlib.MAX_WBITS),
    "gzip": _deflated(zlib.MAX_WBITS | 16),
    "zstd": _zstd,
    "blosc": _sized(numcodecs.Blosc(), _BLOSC_HEADER_BYTES, 4),
    "lz4": _sized(numcodecs.LZ4(), _LZ4_HEADER_BYTES, 0),
}

COMPRESSORS = tuple(_COMPRESSORS)
"""The compressors that are read, by the names that Zarr gives them."""


class Filter(Protocol):
    """A step that changes the values of a chunk, undone after unpacking."""

    def undo(self, chunk: Array) -> Array: ...


@dataclass(frozen=True)
class Transposed:
    """The axes of a chunk were put into another order."""

    order: tuple[int, ...]

    def undo(self, chunk: Array) -> Array:
        return chunk.transpose(np.argsort(self.order))


@dataclass(frozen=True)
class Delta:
    """Each value was replaced by its difference from the one before."""

    dtype: np.dtype[Any]

    def undo(self, chunk: Array) -> Array:
        flat = np.empty(chunk.size, self.dtype)
        np.cumsum(chunk.reshape(-1), dtype=self.dtype, out=flat)
        return flat.reshape(chunk.shape)


@dataclass(frozen=True)
class FixedScaleOffset:
    """Values were stored as whole numbers: (value - offset) * scale."""

    offset: float
    scale: float
    dtype: np.dtype[Any]

    def undo(self, chunk: Array) -> Array:
        values: NDArray[np.float64] = chunk.astype(np.float64)
        return (values / self.scale + self.offset).astype(self.dtype)


@dataclass(frozen=True)
class Packing:
    """Says how a chunk was packed: from its values to the bytes that are stored.

    ``shape`` and ``dtype`` are those of the values after all ``filters``, which were applied in
    their order. Then bytes were shuffled in groups of ``shuffled_bytes``, checksums were added,
    the bytes were compressed, and again checksums added.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    filters: tuple[Filter, ...] = ()
    shuffled_bytes: int = 0
    checksums_inside: int = 0
    compressor: str = ""
    checksums: int = 0

    @property
    def num_bytes(self) -> int:
        """The bytes of an unpacked chunk."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def max_packed_bytes(self) -> int:
        """The bytes that a stored chunk may have; a compressor may add some."""
        added = _CHECKSUM_BYTES * (self.checksums_inside + self.checksums)
        return self.num_bytes + added + (self.num_bytes // 8 + SLACK if self.compressor else 0)

    def unpack(self, data: bytes) -> Array:
        """Return the values of a chunk from its stored bytes.

        Raises:
            ImageError: it is damaged, or would unpack into more bytes than a chunk has.
        """
        data = _without_checksums(data, self.checksums)
        size = self.num_bytes + _CHECKSUM_BYTES * self.checksums_inside
        unpacked: bytes | Bytes = data
        if self.compressor:
            try:
                unpacked = _COMPRESSORS[self.compressor](data, size)
            except (RuntimeError, ValueError, zlib.error) as error:
                if isinstance(error, ImageError):
                    raise
                raise ImageError(
                    f"has chunks that are damaged, or unpack into more pixels than they declare: "
                    f"{error}"
                ) from error
        if self.checksums_inside:
            unpacked = _without_checksums(bytes(unpacked), self.checksums_inside)
        if len(unpacked) != self.num_bytes:
            raise _too_short() if len(unpacked) < self.num_bytes else _too_long()
        if self.shuffled_bytes > 1:
            unpacked = numcodecs.Shuffle(self.shuffled_bytes).decode(unpacked)
        chunk: Array = np.frombuffer(unpacked, self.dtype).reshape(self.shape)
        for each in reversed(self.filters):
            chunk = each.undo(chunk)
        return chunk


def _without_checksums(data: bytes, number: int) -> bytes:
    for _ in range(number):
        data, told = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if google_crc32c.value(data) != int.from_bytes(told, "little"):
            raise ImageError("has chunks whose checksum is wrong: they are damaged")
    return data


def _too_short() -> ImageError:
    return ImageError(
        "has chunks that are damaged: they unpack into fewer pixels than they declare"
    )


def _too_long() -> ImageError:
    return ImageError("has chunks that unpack into more pixels than they declare")
