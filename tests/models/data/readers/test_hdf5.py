"""HDF5 files: their datasets, and that nothing outside of the file is read."""

import io
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from models.data.readers.formats import open_stack
from models.data.readers.stack import Ask, ReadOptions, Stack
from tests.app.files import grey
from tests.models.data.readers.files import MANY, ZEROS, refusal, refused_when_damaged
from tests.models.data.reading import read_sections

STACK = np.stack([grey(n, 24, 40, "uint16") for n in range(4)])


def hdf5(write: Callable[[h5py.File], None], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        write(file)
    return buffer.getvalue()


def one(pixels: np.ndarray, attributes: dict[str, Any] | None = None, **options: Any) -> bytes:
    def write(file: h5py.File) -> None:
        dataset = file.create_dataset("volumes/raw", data=pixels, **options)
        dataset.attrs.update(attributes or {})

    return hdf5(write)


def sections(data: bytes, **options: Any) -> np.ndarray:
    return np.stack(list(read_sections(io.BytesIO(data), MANY, **options)))


def opened(data: bytes, **options: object) -> Stack:
    with open_stack(io.BytesIO(data), Ask(MANY, options=ReadOptions(**options))) as stack:
        return stack


@pytest.mark.parametrize("axis", ["z", "y", "x"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (1, 24, 40)},
        {"chunks": (3, 7, 16)},
        {"chunks": (2, 24, 40), "compression": "gzip"},
        {"chunks": (2, 10, 10), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (4, 16, 16), "compression": "lzf", "shuffle": True},
        {"chunks": (4, 16, 16), "compression": "lzf", "maxshape": (None, None, None)},
        {"chunks": (4, 16, 16), "fletcher32": True},
        {"chunks": (8, 64, 64), "maxshape": (None, None, None)},
    ],
)
def test_every_layout_holds_the_same_pixels(options: dict[str, Any], axis: str) -> None:
    found = sections(one(STACK, **options), axis=axis)
    np.testing.assert_array_equal(found, np.moveaxis(STACK, "zyx".index(axis), 0))


@pytest.mark.parametrize("chunks", [None, (2, 8, 8)])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", ">u2", "int16", "int32", "uint32", ">f4", "float16", "bool"]
)
def test_dtypes(dtype: str, chunks: Any) -> None:
    pixels = (STACK // 300).astype(dtype)
    found = sections(one(pixels, chunks=chunks))
    np.testing.assert_array_equal(found, pixels)
    assert found.dtype.isnative


def test_the_only_dataset_or_the_one_that_is_named() -> None:
    def write(file: h5py.File) -> None:
        file["volumes/raw"] = STACK
        file["volumes/labels"] = STACK // 9000
        file["table"] = np.zeros(9)
        file["names"] = ["a", "b"]
        file["again"] = file["volumes/raw"]
        file["soft"] = h5py.SoftLink("/volumes/raw")
        file["volumes/loop"] = file["volumes"]

    data = hdf5(write)
    said = refusal(data)
    assert "volumes/labels" in said
    assert "2 arrays" in said
    labels = sections(data, path="/volumes/labels", purpose="mask")
    np.testing.assert_array_equal(labels, STACK // 9000)


def test_nothing_outside_of_the_file_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["raw"] = STACK

    def write(file: h5py.File) -> None:
        file["link"] = h5py.ExternalLink(str(secret), "raw")

    assert "no array" in refusal(hdf5(write), path="link")

    def write_external(file: h5py.File) -> None:
        file.create_dataset("raw", (4, 24, 40), "u2", external=[(str(secret), 0, 7680)])

    assert "other files" in refusal(hdf5(write_external))

    def write_virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout(shape=STACK.shape, dtype="u2")
        layout[:] = h5py.VirtualSource(str(secret), "raw", shape=STACK.shape)
        file.create_virtual_dataset("raw", layout)

    assert "other files" in refusal(hdf5(write_virtual))


def test_each_chunk_is_unpacked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.data.readers.hdf5_chunks import Chunks

    read: list[tuple[int, ...]] = []
    unpack = Chunks._chunk

    def counting(self: Chunks, at: tuple[int, ...]) -> Any:
        read.append(at)
        return unpack(self, at)

    monkeypatch.setattr(Chunks, "_chunk", counting)
    sections(one(STACK, chunks=(2, 8, 8), compression="gzip"))
    assert len(read) == len(set(read)) == 2 * 3 * 5


@pytest.mark.parametrize("compression", ["gzip", "lzf", None])
def test_a_chunk_unpacks_into_no_more_than_its_pixels(compression: str | None) -> None:
    def write(file: h5py.File) -> None:
        options = {"compression": compression, "chunks": (1, 24, 40)}
        dataset = file.create_dataset("raw", data=STACK, **options)
        dataset.id.write_direct_chunk((1, 0, 0), zlib.compress(ZEROS.tobytes()))

    assert any(word in refusal(hdf5(write)) for word in ("chunk", "lzf"))


def test_chunks_that_are_damaged_are_refused() -> None:
    data = one(STACK, chunks=(4, 24, 40), fletcher32=True)
    place = data.index(STACK.tobytes()[:64])
    damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    assert "checksum" in refusal(damaged)


def test_chunks_that_are_not_stored_hold_the_fill_value() -> None:
    def write(file: h5py.File) -> None:
        options = {"chunks": (1, 24, 40), "fillvalue": 7}
        file.create_dataset("raw", STACK.shape, "u2", **options)[1] = STACK[1]

    found = sections(hdf5(write))
    np.testing.assert_array_equal(found[1], STACK[1])
    assert (found[[0, 2, 3]] == 7).all()


def test_a_dataset_without_pixels_takes_no_memory() -> None:
    for chunks in (None, (1, 1 << 14, 1 << 14)):
        data = hdf5(
            lambda file, chunks=chunks: file.create_dataset(
                "raw", (4, 1 << 14, 1 << 14), "u2", chunks=chunks
            )
        )
        assert "no pixels" in refusal(data, 1 << 28)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((4, 9, 9), "f8"), "float64"),
        (np.zeros((4, 9, 9), "c8"), "complex64"),
        (np.zeros((9, 9, 3), "u1"), "colours"),
        (np.zeros((2, 2, 9, 9), "u1"), "depth"),
        (np.zeros((0, 9, 9), "u1"), "none of them"),
    ],
)
def test_datasets_that_are_refused(pixels: np.ndarray, said: str) -> None:
    assert said in refusal(one(pixels))


def test_other_filters_are_refused_in_words() -> None:
    data = one(STACK, chunks=(1, 24, 40), scaleoffset=4)
    assert "scaleoffset" in refusal(data)


def test_numbers_of_unusual_forms_are_refused() -> None:
    def write(file: h5py.File) -> None:
        form = h5py.h5t.STD_U16LE.copy()
        form.set_precision(12)
        space = h5py.h5s.create_simple((4, 24, 40))
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 24, 40))
        dataset = h5py.h5d.create(file.id, b"raw", form, space, properties)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, STACK)

    assert "unusual" in refusal(hdf5(write))


def test_matlab_stores_the_other_way_round() -> None:
    pixels = np.moveaxis(STACK, 0, 2)  # as in MATLAB: rows, columns, sections
    as_matlab = np.ascontiguousarray(pixels.T)
    data = one(as_matlab, {"MATLAB_class": np.bytes_("uint16")})
    np.testing.assert_array_equal(sections(data), STACK)
    for chunks in (None, (1, 8, 8)):
        np.testing.assert_array_equal(sections(mat(as_matlab, chunks)), STACK)


def mat(pixels: np.ndarray, chunks: Any) -> bytes:
    """A file with room before it, as MATLAB writes it."""

    def write(file: h5py.File) -> None:
        dataset = file.create_dataset("raw", data=pixels, chunks=chunks)
        dataset.attrs["MATLAB_class"] = np.bytes_("uint16")

    return hdf5(write, userblock_size=512)


def test_one_of_several_channels_is_named() -> None:
    both = np.stack([STACK, 65535 - STACK], axis=-1)
    tags = json.dumps({"axes": [{"key": axis} for axis in "zyxc"]})
    data = one(both, {"axistags": tags})
    assert "2 channels" in refusal(data)
    np.testing.assert_array_equal(sections(data, channel=1), 65535 - STACK)
    assert "2 channels" in refusal(data, channel=2)
    assert "one channel" in refusal(one(STACK), channel=1)
    series = json.dumps({"axes": [{"key": axis} for axis in "tzyx"]})
    said = refusal(one(np.moveaxis(both, -1, 0), {"axistags": series}))
    assert "2 along its axis t" in said


def test_damaged_files_raise_nothing_but_image_errors() -> None:
    small = STACK[:2, :16, :16]
    files = [
        one(small, {"element_size_um": [1.0, 1.0, 1.0]}),
        one(small, chunks=(1, 8, 8), compression="gzip", shuffle=True),
        one(small, chunks=(2, 16, 16), compression="lzf", fletcher32=True),
        hdf5(lambda file: file.create_dataset("raw", data=small, chunks=True), libver="latest"),
    ]
    assert 0.1 < refused_when_damaged(files, times=150) < 1


def test_without_h5py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = one(STACK)
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "[hdf5]" in refusal(data)
