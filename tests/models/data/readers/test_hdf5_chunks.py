"""Chunks of HDF5 are read without the library, which trusts the sizes that it finds."""

import io
from collections.abc import Callable
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pytest

from models.data.readers.hdf5_chunks import Chunks
from models.data.readers.limits import ImageError
from tests.app.files import grey

STACK = np.stack([grey(n, 24, 40, "uint16") for n in range(4)])
WHOLE = tuple(slice(0, side) for side in STACK.shape)


def chunks(stream: io.BytesIO, file: h5py.File) -> Chunks:
    return Chunks(file["raw"], stream, stream.seek(0, 2))


def written(**options: Any) -> io.BytesIO:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("raw", data=STACK, **options)
    return stream


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_a_part_of_the_filters_may_be_left_out_of_a_chunk(compression: str | None) -> None:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        raw = file.create_dataset(
            "raw", data=STACK, chunks=(1, 24, 40), shuffle=True, compression=compression
        )
        raw.id.write_direct_chunk((1, 0, 0), STACK[2].tobytes(), filter_mask=0b11)
    with h5py.File(stream, "r") as file:
        found = chunks(stream, file).read(WHOLE)
    np.testing.assert_array_equal(found, STACK[[0, 2, 2, 3]])


def test_boxes_of_chunks() -> None:
    stream = written(chunks=(3, 7, 16), compression="gzip")
    box = (slice(1, 4), slice(5, 15), slice(0, 33))
    with h5py.File(stream, "r") as file:
        np.testing.assert_array_equal(chunks(stream, file).read(box), STACK[box])


@pytest.mark.parametrize("size", [100, 1920 - 1, 60_000, 200_000])
def test_a_chunk_of_another_size_than_it_says_is_refused(size: int) -> None:
    """Without filters the library would write it all, beyond the memory that it has."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        raw = file.create_dataset("raw", data=STACK, chunks=(1, 24, 40))
        raw.id.write_direct_chunk((1, 0, 0), bytes(size))
    with h5py.File(stream, "r") as file, pytest.raises(ImageError, match="chunk"):
        chunks(stream, file).read(WHOLE)


def test_a_file_that_ends_before_its_pixels_is_refused() -> None:
    stream = written()
    with h5py.File(stream, "r") as file, pytest.raises(ImageError, match="cut off"):
        Chunks(file["raw"], stream, 5000)


def test_a_chunk_packed_in_an_odd_order_is_refused() -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, 24, 40))
    properties.set_deflate(4)
    properties.set_shuffle()
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        space = h5py.h5s.create_simple(STACK.shape)
        made = h5py.h5d.create(file.id, b"raw", h5py.h5t.STD_U16LE, space, properties)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, STACK)
    with h5py.File(stream, "r") as file, pytest.raises(ImageError, match="order"):
        chunks(stream, file).read(WHOLE)


def _blosc_encode(data: bytes) -> bytes:
    return bytes(imagecodecs.blosc_encode(data, level=5, typesize=2, shuffle=1))


@pytest.mark.parametrize(
    ("code", "encode"), [(32015, imagecodecs.zstd_encode), (32001, _blosc_encode)]
)
def test_zstd_and_blosc_are_read_without_the_plugins_that_the_library_needs(
    code: int, encode: Callable[[bytes], bytes]
) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, 24, 40))
    properties.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (3,))
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        space = h5py.h5s.create_simple(STACK.shape)
        made = h5py.h5d.create(file.id, b"raw", h5py.h5t.STD_U16LE, space, properties)
        for number, section in enumerate(STACK):
            made.write_direct_chunk((number, 0, 0), encode(section.tobytes()))
    with h5py.File(stream, "r") as file:
        np.testing.assert_array_equal(chunks(stream, file).read(WHOLE), STACK)
