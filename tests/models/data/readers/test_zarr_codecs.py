"""Chunks are unpacked into exactly the bytes that they declare, or refused."""

import contextlib
import gzip
import tracemalloc
from collections.abc import Callable

import google_crc32c
import numcodecs
import numpy as np
import pytest

from models.data.readers.limits import ImageError
from models.data.readers.zarr_codecs import (
    COMPRESSORS,
    Delta,
    FixedScaleOffset,
    Packing,
    Transposed,
)

BOMB_BYTES = 64 << 20
CHUNK = np.random.default_rng(0).integers(0, 9, (16, 16)).astype(np.uint8)


def packed(name: str, data: bytes) -> bytes:
    return bytes(numcodecs.get_codec({"id": name}).encode(data))


def packing(name: str = "", **fields: object) -> Packing:
    return Packing((16, 16), np.dtype(np.uint8), compressor=name, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_chunk_has_its_own_size(name: str) -> None:
    data = CHUNK.tobytes()
    np.testing.assert_array_equal(packing(name).unpack(packed(name, data)), CHUNK)
    for wrong, said in ((data + b"\0", "more pixels"), (data[:-1], "damaged"), (b"", "damaged")):
        with pytest.raises(ImageError, match=said):
            packing(name).unpack(packed(name, wrong))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_bomb_takes_no_memory(name: str) -> None:
    bomb = packed(name, bytes(BOMB_BYTES))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="more pixels"):
            packing(name).unpack(bomb)
        assert tracemalloc.get_traced_memory()[1] < BOMB_BYTES // 64
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", COMPRESSORS)
def test_damaged_bytes_are_refused_or_are_other_pixels(name: str) -> None:
    """No damage ends in anything else but an ImageError or a chunk of the right size."""
    data = packed(name, CHUNK.tobytes())
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] = rng.integers(256)
        kept = bytes(damaged[: rng.integers(len(data)) + 1])
        for each in (bytes(damaged), kept):
            with contextlib.suppress(ImageError):
                assert packing(name).unpack(each).shape == (16, 16)


def test_zstd_of_zeros_and_of_each_last_value() -> None:
    for value in range(256):
        chunk = np.full((16, 16), value, np.uint8)
        np.testing.assert_array_equal(
            packing("zstd").unpack(packed("zstd", chunk.tobytes())), chunk
        )


def test_gzip_of_several_members() -> None:
    data = CHUNK.tobytes()
    both = gzip.compress(data[:100]) + gzip.compress(data[100:])
    np.testing.assert_array_equal(packing("gzip").unpack(both), CHUNK)
    with pytest.raises(ImageError, match="more pixels"):
        packing("gzip").unpack(both + gzip.compress(b"\0"))


def checksummed(data: bytes) -> bytes:
    return data + google_crc32c.value(data).to_bytes(4, "little")


def test_checksums_inside_and_outside() -> None:
    data = CHUNK.tobytes()
    stored = checksummed(packed("zstd", checksummed(data)))
    both = packing("zstd", checksums_inside=1, checksums=1)
    np.testing.assert_array_equal(both.unpack(stored), CHUNK)
    for wrong in (stored[:-1] + b"\0", checksummed(packed("zstd", data + b"\0\0\0\0"))):
        with pytest.raises(ImageError, match="checksum"):
            both.unpack(wrong)
    with pytest.raises(ImageError, match="checksum"):
        packing(checksums=1).unpack(b"ab")


def test_filters_are_undone_in_reverse() -> None:
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 7
    turned = values.T
    stored = np.diff(turned.reshape(-1), prepend=0).astype(np.uint16)
    filters = (Transposed((1, 0)), Delta(np.dtype(np.uint16)))
    found = Packing((3, 2), np.dtype("<u2"), filters).unpack(stored.tobytes())
    np.testing.assert_array_equal(found, values)
    scaled = FixedScaleOffset(10, 2, np.dtype(np.float32))
    np.testing.assert_array_equal(scaled.undo(np.array([0, 1, 6], np.uint8)), [10, 10.5, 13])


@pytest.mark.parametrize("name", ["", *COMPRESSORS])
def test_the_stored_bytes_are_bounded(name: str) -> None:
    pack: Callable[[bytes], bytes] = (lambda data: packed(name, data)) if name else bytes
    noise = np.random.default_rng(0).bytes(256)
    assert len(pack(noise)) <= packing(name).max_packed_bytes < 256 + (1 << 17)
