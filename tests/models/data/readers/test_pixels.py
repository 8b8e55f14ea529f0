"""Channels, palettes and orientations of pictures."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from models.data.readers.limits import ImageError
from models.data.readers.pixels import grey_of, shown_by_palette, turned
from tests.app.files import grey

GREY = grey(1, 4, 6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_channels_that_agree_are_grey(dtype: str) -> None:
    one = GREY.astype(dtype)
    opaque = np.full_like(one, 1 if dtype == "float32" else np.iinfo(dtype).max)
    np.testing.assert_array_equal(grey_of(np.stack([one] * 3, -1), alpha=False, channel=None), one)
    with_alpha = np.stack([one, one, one, opaque], -1)
    np.testing.assert_array_equal(grey_of(with_alpha, alpha=True, channel=None), one)
    with_alpha[2, 3, 3] = 0
    with pytest.raises(ImageError, match="transparent"):
        grey_of(with_alpha, alpha=True, channel=None)


def test_channels_that_differ_are_refused_unless_one_is_named() -> None:
    colour = np.stack([GREY, 255 - GREY, GREY], -1)
    with pytest.raises(ImageError, match="colour"):
        grey_of(colour, alpha=False, channel=None)
    np.testing.assert_array_equal(grey_of(colour, alpha=False, channel=1), 255 - GREY)
    with pytest.raises(ImageError, match="3 channels"):
        grey_of(colour, alpha=False, channel=3)


def test_a_palette_shows_grey_values() -> None:
    palette = np.stack([255 - np.arange(256)] * 3, -1).astype(np.uint8)
    np.testing.assert_array_equal(shown_by_palette(GREY, palette), 255 - GREY)
    indices = np.array([[0, 1], [1, 1]], np.uint8)
    palette = np.array([[0, 0, 0], [9, 9, 9], [1, 2, 3]], np.uint8)  # the last is not used
    np.testing.assert_array_equal(shown_by_palette(indices, palette), indices * 9)
    with pytest.raises(ImageError, match="colours"):
        shown_by_palette(indices + 1, palette)
    with pytest.raises(ImageError, match="index 3"):
        shown_by_palette(indices + 2, palette)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_exif(orientation: int) -> None:
    picture = Image.fromarray(GREY)
    picture.getexif()[274] = orientation
    np.testing.assert_array_equal(turned(GREY, orientation), ImageOps.exif_transpose(picture))
