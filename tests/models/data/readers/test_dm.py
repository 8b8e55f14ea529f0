"""Gatan's DM3 and DM4 files."""

import io
from typing import Any

import numpy as np
import pytest

from models.data.readers.formats import open_stack
from models.data.readers.stack import Ask, Stack
from tests.app.files import grey
from tests.models.data.readers.dm_files import THUMBNAIL, DmWriter, dm, image
from tests.models.data.readers.files import MANY, refusal, refused_when_damaged
from tests.models.data.reading import read_sections

STACK = np.stack([grey(n, 24, 40, "uint16") for n in range(3)])


def sections(data: bytes, **options: Any) -> np.ndarray:
    return np.stack(list(read_sections(io.BytesIO(data), MANY, **options)))


def opened(data: bytes) -> Stack:
    with open_stack(io.BytesIO(data), Ask(MANY)) as stack:
        return stack


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32"]
)
def test_images_of_every_dtype(version: int, order: str, dtype: str) -> None:
    pixels = (STACK // 300).astype(dtype)
    for image_or_stack in (pixels[0], pixels):
        found = sections(dm(image_or_stack, version, order))
        np.testing.assert_array_equal(found, np.atleast_3d(pixels)[: len(found)])
        assert found.dtype == dtype


def test_an_image_of_few_pixels_is_no_text() -> None:
    np.testing.assert_array_equal(sections(dm(STACK[0, :4, :5])), STACK[:1, :4, :5])


@pytest.mark.parametrize("unit", ["nm", "µm", "1/nm", ""])
def test_the_size_of_a_pixel_is_that_of_the_calibration(unit: str) -> None:
    size = {"nm": (5, 4), "µm": (5000, 4000)}.get(unit)
    stated = opened(dm(STACK, sizes=(50, 5, 4), unit=unit)).pixel_size_nm
    assert stated == (None if size is None else pytest.approx(size))


def test_the_thumbnail_is_left_out_also_where_it_is_not_named() -> None:
    tree = {"ImageList": {"0": THUMBNAIL, "1": image(STACK)}}
    np.testing.assert_array_equal(sections(DmWriter(3).file(tree)), STACK)


def test_one_of_several_images_is_named() -> None:
    tree = {"ImageList": {"0": THUMBNAIL, "1": image(STACK), "2": image(65535 - STACK)}}
    data = DmWriter(4).file(tree)
    assert "1, 2" in refusal(data)
    np.testing.assert_array_equal(sections(data, path="2"), 65535 - STACK)


def test_what_is_no_image_is_refused() -> None:
    assert "float64" in refusal(dm(STACK.astype(np.float64)))
    assert "spectra" in refusal(dm(STACK, sizes=(1, 5, 4), unit="eV"))
    assert "1 axes" in refusal(dm(STACK[0, 0]))
    assert "no array" in refusal(DmWriter(3).file({"ImageList": {}}))


def test_files_that_are_cut_off_or_lie_about_their_size_are_refused() -> None:
    data = dm(STACK)
    assert "cut off" in refusal(data[:3000])
    huge = {"0": 1 << 30, "1": 1 << 14}
    tree = {"ImageList": {"0": {"ImageData": {**image(STACK)["ImageData"], "Dimensions": huge}}}}  # type: ignore[dict-item]
    assert "fewer pixels" in refusal(DmWriter(3).file(tree))


def test_damaged_files_raise_nothing_but_image_errors() -> None:
    files = [dm(STACK[:, :8, :8], version, order) for version in (3, 4) for order in "<>"]
    assert 0.3 < refused_when_damaged(files, times=100) < 1
