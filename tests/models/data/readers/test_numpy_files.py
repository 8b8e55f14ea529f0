"""NumPy's files, of one array or of several."""

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest

from tests.app.files import grey
from tests.models.data.readers.files import MANY, ZEROS, refusal, refused_when_damaged
from tests.models.data.reading import read_sections

STACK = np.stack([grey(n, 24, 40, "uint16") for n in range(4)])


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz(*, packed: bool = True, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def sections(data: bytes, **options: Any) -> np.ndarray:
    return np.stack(list(read_sections(io.BytesIO(data), MANY, **options)))


def with_header(data: bytes, **changes: object) -> bytes:
    """An NPY file whose header says something else."""
    (length,) = struct.unpack("<H", data[8:10])
    header = eval(data[10 : 10 + length]) | changes
    text = repr(header).encode()
    text += b" " * (-(10 + len(text) + 1) % 64) + b"\n"
    return data[:8] + struct.pack("<H", len(text)) + text + data[10 + length :]


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int16", "float32", "float16", "bool"])
def test_arrays_of_every_order(dtype: str, order: Any) -> None:
    pixels = np.asarray(STACK // 300, dtype=dtype, order=order)
    for array in (pixels, pixels[0], pixels[None]):
        found = sections(npy(array))
        np.testing.assert_array_equal(found, array.reshape(-1, 24, 40))
    for axis, number in (("y", 1), ("x", 2)):
        np.testing.assert_array_equal(
            sections(npy(pixels), axis=axis), np.moveaxis(pixels, number, 0)
        )


@pytest.mark.parametrize("packed", [False, True])
def test_the_only_array_or_the_one_that_is_named(packed: bool) -> None:
    np.testing.assert_array_equal(sections(npz(packed=packed, raw=STACK)), STACK)
    several = npz(packed=packed, raw=STACK, labels=STACK // 9000)
    said = refusal(several)
    assert "raw" in said
    assert "labels" in said
    np.testing.assert_array_equal(sections(several, path="labels"), STACK // 9000)
    np.testing.assert_array_equal(sections(several, path="raw", axis="x"), np.moveaxis(STACK, 2, 0))
    assert "'other'" in refusal(several, path="other")


def test_the_path_of_the_images_is_none_of_masks_with_one_array() -> None:
    data = npz(labels=STACK // 9000)
    np.testing.assert_array_equal(sections(data, path="raw", purpose="mask"), STACK // 9000)
    assert "'raw'" in refusal(data, path="raw")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([{}]), "dtype"),
        (np.zeros((4, 4), "f8"), "float64"),
        (np.zeros((4, 4), "c8"), "complex64"),
        (np.zeros((4, 4), "U3"), "dtype"),
        (np.zeros((4, 4), [("a", "u1")]), "dtype"),
        (np.zeros(4, "u1"), "shape"),
        (np.zeros((2, 2, 9, 9), "u1"), "shape"),
        (np.zeros((9, 9, 3), "u1"), "colours"),
        (np.zeros((0, 9, 9), "u1"), "none of them"),
        (np.zeros((9, 0), "u1"), "empty"),
    ],
)
def test_arrays_that_are_refused(array: np.ndarray, said: str) -> None:
    if array.ndim == 1 and array.dtype == object:
        array = array.reshape(1, 1)
    assert said in refusal(npy(array))
    assert said in refusal(npz(a=array))


def test_sizes_are_checked_before_pixels_are_read() -> None:
    lying = with_header(npy(STACK), shape=(1, 1 << 14, 1 << 14))
    assert "cut off" in refusal(lying, 1 << 28)
    assert "959 pixels" in refusal(npy(STACK), 959)
    huge = with_header(npy(STACK), shape=(1, 1 << 40, 1 << 40))
    assert "cut off" in refusal(huge, 1 << 28)
    assert "cut off" in refusal(with_header(npy(STACK), shape=(-4, 24, 40)))
    assert "cut off" in refusal(npy(STACK)[:-1])


def test_a_member_unpacks_into_no_more_than_its_array() -> None:
    array = npy(np.zeros((16, 16), np.uint8))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", array + ZEROS.tobytes())
    assert sections(buffer.getvalue()).shape == (1, 16, 16)
    assert "records" in refusal(npz_of(b"\x93NUMPY\x02\0\xff\xff\xff\x7f" + ZEROS.tobytes()))


def npz_of(member: bytes, packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        archive.writestr("a.npy", member)
    return buffer.getvalue()


def test_other_packings_have_no_bound() -> None:
    assert "deflate" in refusal(npz_of(npy(STACK), zipfile.ZIP_LZMA))


def test_damaged_files_raise_nothing_but_image_errors() -> None:
    small = STACK[:2, :9, :9]
    files = [npy(small), npy(np.asfortranarray(small)), npz(a=small), npz(a=small, packed=False)]
    assert 0.3 < refused_when_damaged(files, times=100) < 1
