"""MRC files, written by mrcfile; what it does not write is changed in the header."""

import io
import struct
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from models.data.readers.formats import open_stack
from models.data.readers.stack import Ask, ReadOptions, Stack
from tests.app.files import grey
from tests.models.data.readers.files import MANY, refusal, refused_when_damaged
from tests.models.data.reading import read_sections

STACK = np.stack([grey(n, 24, 40, "uint16") for n in range(4)])
BYTES = (STACK >> 8).astype(np.uint8)
IMOD = 1146047817


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes an MRC file; ``voxel`` has the sizes along x, y and z in Angstrom."""

    def write(pixels: np.ndarray, voxel: tuple[float, ...] | None = None) -> bytes:
        with mrcfile.new(tmp_path / "a.mrc", overwrite=True) as file:
            file.set_data(pixels)
            if voxel is not None:
                file.voxel_size = voxel
        return (tmp_path / "a.mrc").read_bytes()

    return write


def changed(data: bytes, **words: float) -> bytes:
    """The file with other numbers in words of its header: ``w4=0`` sets the mode."""
    header = bytearray(data)
    for name, value in words.items():
        form = "<f" if isinstance(value, float) else "<i"
        struct.pack_into(form, header, 4 * (int(name[1:]) - 1), value)
    return bytes(header)


def sections(data: bytes, **options: Any) -> np.ndarray:
    return np.stack(list(read_sections(io.BytesIO(data), MANY, **options)))


def opened(data: bytes, **options: object) -> Stack:
    with open_stack(io.BytesIO(data), Ask(MANY, options=ReadOptions(**options))) as stack:
        return stack


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32", "float16"])
def test_every_mode_and_byte_order(written: Any, dtype: str, order: str) -> None:
    pixels = (STACK // 300).astype(np.dtype(dtype).newbyteorder(order))
    found = sections(written(pixels))
    np.testing.assert_array_equal(found, pixels)
    assert found.dtype == ("float32" if dtype == "float16" else dtype)


def test_one_section(written: Any) -> None:
    np.testing.assert_array_equal(sections(written(STACK[0])), STACK[:1])


@pytest.mark.parametrize(
    ("words", "dtype"),
    [
        ({"w39": IMOD, "w40": 0}, "uint8"),
        ({"w39": IMOD, "w40": 1}, "int8"),
        ({"w39": IMOD, "w40": 3, "w21": 255.0}, "int8"),
        ({"w20": 3.0, "w21": 255.0}, "uint8"),
        ({"w20": -3.0, "w21": 100.0}, "int8"),
        ({"w20": 3.0, "w21": 100.0}, "int8"),
    ],
)
def test_bytes_have_a_sign_where_the_header_says_so(
    written: Any, words: dict[str, float], dtype: str
) -> None:
    data = changed(written(BYTES.view(np.int8)), **words)
    found = sections(data)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, BYTES.view(dtype))


def test_short_numbers_have_no_sign_where_the_largest_tells(written: Any) -> None:
    data = changed(written(STACK), w4=1)
    np.testing.assert_array_equal(sections(data), STACK)


def test_a_sign_that_no_header_tells_is_noted(written: Any) -> None:
    data = changed(written(BYTES.view(np.int8)), w20=3.0, w21=100.0, w28=0)
    assert any("sign" in note for note in opened(data).notes)
    assert not any("sign" in note for note in opened(written(STACK)).notes)


def test_masks_may_be_upside_down_is_noted(written: Any) -> None:
    assert any("upside down" in note for note in opened(written(STACK)).notes)


@pytest.mark.parametrize(
    ("voxel", "size"),
    [((40, 50, 600), (5, 4)), ((1, 1, 1), None), ((0, 0, 0), None), (None, None)],
)
def test_the_size_of_a_pixel(
    written: Any, voxel: tuple[float, ...] | None, size: tuple[float, float] | None
) -> None:
    stated = opened(written(STACK, voxel)).pixel_size_nm
    assert stated == (None if size is None else pytest.approx(size))


def test_the_size_of_a_pixel_along_other_axes(written: Any) -> None:
    data = written(STACK, (40, 50, 600))
    assert opened(data, axis="y").pixel_size_nm == pytest.approx((60, 4))
    assert opened(data, axis="x").pixel_size_nm == pytest.approx((60, 5))


@pytest.mark.parametrize("stored", ["zyx", "xyz", "yxz", "zxy"])
def test_axes_lie_as_the_header_maps_them(written: Any, stored: str) -> None:
    """Columns, rows and sections of the file may be any of x, y and z."""
    as_stored = np.ascontiguousarray(STACK.transpose(["zyx".index(axis) for axis in stored]))
    numbers = {"x": 1, "y": 2, "z": 3}
    sections_are, rows_are, columns_are = (numbers[axis] for axis in stored)
    data = changed(written(as_stored), w17=columns_are, w18=rows_are, w19=sections_are)
    np.testing.assert_array_equal(sections(data), STACK)
    np.testing.assert_array_equal(sections(data, axis="y"), STACK.swapaxes(0, 1))


def test_pixels_begin_behind_the_extended_header(written: Any) -> None:
    data = changed(written(STACK), w24=80)
    np.testing.assert_array_equal(sections(data[:1024] + bytes(80) + data[1024:]), STACK)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"w4": 4}, "complex"),
        ({"w4": 101}, "4 bits"),
        ({"w4": 77}, "not known"),
        ({"w23": 401}, "several volumes"),
        ({"w17": 2}, "axes"),
        ({"w1": 1 << 14, "w2": 1 << 14}, "cut off"),
        ({"w1": -5}, "cut off"),
        ({"w3": 0}, "none of them"),
        ({"w1": 0}, "empty"),
        ({"w1": 1 << 16, "w2": 1 << 16}, "cut off"),
        ({"w24": 1 << 30}, "cut off"),
    ],
)
def test_headers_that_are_refused(written: Any, words: dict[str, int], said: str) -> None:
    assert said in refusal(changed(written(STACK), **words), 1 << 28)


def test_a_file_that_is_cut_off_is_refused(written: Any) -> None:
    data = written(STACK)
    assert "cut off" in refusal(data[:-1])
    assert "cut off" in refusal(data[:600])


def test_damaged_files_raise_nothing_but_image_errors(written: Any) -> None:
    files = [written(STACK[:, :8, :8]), written(BYTES.view(np.int8)[:2, :9, :9])]
    assert 0.2 < refused_when_damaged(files, times=150) < 1
