"""Arrays without compression: their axes in any order, and never more than the file has."""

import io
from itertools import permutations

import numpy as np
import pytest

from models.data.readers.limits import ImageError
from models.data.readers.raw import RawArray, sections_of
from models.data.readers.stack import Ask
from tests.app.files import grey
from tests.models.data.readers.files import MANY

STACK = np.stack([grey(n, 5, 7, "uint16") for n in range(4)])


@pytest.mark.parametrize("stored", ["".join(order) for order in permutations("zyx")])
def test_windows_of_axes_in_any_order(stored: str) -> None:
    pixels = np.ascontiguousarray(STACK.transpose(["zyx".index(axis) for axis in stored]))
    depth, height, width = pixels.shape
    stream = io.BytesIO(b"head" + pixels.astype(">u2").tobytes())
    array = RawArray(stream, 4, (depth, height, width), np.dtype(">u2"), stored)
    volume = array.volume(4 + pixels.nbytes, Ask(MANY), (1, 2, 3))
    assert volume.shape == STACK.shape
    assert volume.dtype == np.uint16
    for window in (
        (slice(0, 4), slice(0, 5), slice(0, 7)),
        (slice(1, 3), slice(2, 4), slice(3, 6)),
    ):
        np.testing.assert_array_equal(volume.read(window), STACK[window])
    with pytest.raises(ImageError, match="cut off"):
        array.volume(3 + pixels.nbytes, Ask(MANY), (1, 2, 3))


def test_shapes_of_sections() -> None:
    assert sections_of((5, 7)) == (1, 5, 7)
    assert sections_of((1, 1, 4, 5, 7)) == (4, 5, 7)
    assert sections_of((9, 2, 3)) == (9, 2, 3)
    for shape in ((5,), (2, 4, 5, 7), (), (5, 7, 3)):
        with pytest.raises(ImageError, match="shape"):
            sections_of(shape)
