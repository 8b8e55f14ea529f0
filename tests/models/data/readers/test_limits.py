"""The bounds that all formats share."""

from tempfile import SpooledTemporaryFile

import numpy as np
import pytest

from models.data.readers.limits import (
    MAX_UNPACKED_BYTES,
    ImageError,
    check_chunk,
    check_dtype,
    check_look_ups,
    check_size,
    check_unpacked,
)
from tests.app.files import grey, png
from tests.models.data.readers.files import MANY
from tests.models.data.reading import read_sections


@pytest.mark.parametrize("name", ["uint8", "uint16", "int8", "int16", "uint32", "int32", "float32"])
def test_dtypes_of_images(name: str) -> None:
    check_dtype(name, mask=False)


@pytest.mark.parametrize(
    "name", ["float64", "int64", "uint64", "complex64", "object", "S4", "M8[s]"]
)
def test_dtypes_that_no_image_has(name: str) -> None:
    with pytest.raises(ImageError, match="dtype"):
        check_dtype(name, mask=False)


def test_dtypes_of_masks() -> None:
    for name in ("bool", "int64", "uint8", "float32", "float64"):
        check_dtype(name, mask=True)
    for name in ("complex64", "object", "U1"):
        with pytest.raises(ImageError, match="class ids"):
            check_dtype(name, mask=True)


def test_a_section_has_a_limit_of_pixels_and_of_bytes() -> None:
    check_size((10, 10), 100, np.float32)
    check_size((10, 10), 100, np.uint8, 4)
    with pytest.raises(ImageError, match="10 x 10 px.* 99 pixels"):
        check_size((10, 10), 99)
    with pytest.raises(ImageError, match="8 bytes each.* 400 bytes"):
        check_size((10, 10), 100, np.int64)
    with pytest.raises(ImageError, match="6 bytes each"):
        check_size((10, 10), 100, np.uint16, 3)
    with pytest.raises(ImageError, match="empty"):
        check_size((0, 10), 100)


def test_a_chunk_has_the_limit_of_four_sections() -> None:
    check_chunk((4, 10, 10), 100, np.float32)
    with pytest.raises(ImageError, match="chunks of 5 x 10 x 10 px"):
        check_chunk((5, 10, 10), 100)
    with pytest.raises(ImageError, match="chunks"):
        check_chunk((4, 10, 10), 100, np.complex128)


def test_what_unpacks_into_much_has_to_be_large_itself() -> None:
    check_unpacked(MAX_UNPACKED_BYTES, 100)
    check_unpacked(1 << 40, 1 << 30)
    with pytest.raises(ImageError, match="100 bytes"):
        check_unpacked(MAX_UNPACKED_BYTES + 1, 100)


def test_a_section_is_of_few_parts() -> None:
    check_look_ups(1 << 17, "chunks")
    with pytest.raises(ImageError, match="131073 chunks"):
        check_look_ups(131073, "chunks")


def test_words_of_decoders_name_no_object_of_the_program() -> None:
    error = ImageError("is damaged: cannot identify image file <a.B object at 0x7f00>")
    assert str(error) == "is damaged: cannot identify image file"
    assert str(ImageError("is 2 < 3 px at <0x> wide")) == "is 2 < 3 px at <0x> wide"
    with SpooledTemporaryFile() as file:
        file.write(png(grey(1))[:8] + bytes(100))
        file.seek(0)
        with pytest.raises(ImageError) as refused:
            list(read_sections(file, MANY))
    assert " at 0x" not in str(refused.value)
