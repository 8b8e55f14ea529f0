"""Micrographs and masks that were read: checked, decoded, encoded and shown."""

import numpy as np
import pytest

from models.data.images import check_image, decode_image, png_bytes, shown
from models.data.readers.limits import IMAGE_DTYPES, ImageError
from tests.app.files import grey, tiff

MANY = 1 << 20


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_round_trip(dtype: str) -> None:
    image = grey(1, 7, 5, dtype)
    np.testing.assert_array_equal(decode_image(png_bytes(image), MANY), image)


@pytest.mark.parametrize("dtype", IMAGE_DTYPES)
def test_grey_values_stay_as_the_file_has_them(dtype: str) -> None:
    image = (np.arange(12).reshape(3, 4) - 6).astype(dtype)
    assert check_image(image) is image


def test_grey_values_that_png_cannot_hold_are_shown_by_their_window() -> None:
    image = np.array([[-10, 0, 10, 20]], np.int16)
    np.testing.assert_array_equal(shown(image, (0, 20)), [[0, 0, 128, 255]])
    np.testing.assert_array_equal(shown(image, (20, 0)), [[255, 255, 128, 0]])
    for dtype in ("uint8", "uint16"):
        plain = np.array([[0, 200]], dtype)
        assert shown(plain, (0, 10)) is plain


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_no_grey_value(value: float) -> None:
    with pytest.raises(ImageError, match="NaN.* row 1, column 2"):
        check_image(np.array([[1, 1, 1], [1, 1, value]], np.float32))
    with pytest.raises(ImageError, match="float64"):
        check_image(np.array([[1.0]]))


def test_a_stack_is_not_predicted_in_part() -> None:
    stack = np.stack([grey(n) for n in range(12)])
    one_page = {"imagej": True, "metadata": {"axes": "ZYX"}, "truncate": True}
    for options in ({}, one_page):
        with pytest.raises(ImageError, match="stack of 12 sections"):
            decode_image(tiff(stack, **options), MANY)
    np.testing.assert_array_equal(decode_image(tiff(stack[:1]), MANY), stack[0])
