"""PNG files of every kind of colour and depth."""

import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from models.data.readers.formats import open_stack
from models.data.readers.stack import Ask, Stack
from tests.app.files import encoded, grey, png
from tests.models.data.readers.files import MANY, refusal, refused_when_damaged
from tests.models.data.reading import read_sections

IMAGE = grey(1, 30, 44)
WIDE = grey(2, 30, 44, "uint16")


def section(data: bytes, **options: Any) -> np.ndarray:
    (found,) = read_sections(io.BytesIO(data), MANY, **options)
    return np.asarray(found)


def opened(data: bytes) -> Stack:
    with open_stack(io.BytesIO(data), Ask(MANY)) as stack:
        return stack


def by_hand(pixels: np.ndarray, bits: int, kind: int, **chunks: bytes) -> bytes:
    """A PNG of packed samples (H, W * samples), with any further chunks before its pixels."""
    height, width = pixels.shape
    packed = imagecodecs.packints_encode(pixels, bits, runlen=width)
    rows = np.frombuffer(packed, np.uint8).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = {"IHDR": header, **chunks, "IDAT": zlib.compress(np.pad(rows, ((0, 0), (1, 0))))}
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in (parts | {"IEND": b""}).items():
        tagged = name.encode() + body
        data += struct.pack(">I", len(body)) + tagged + struct.pack(">I", zlib.crc32(tagged))
    return data


@pytest.mark.parametrize("purpose", ["image", "mask"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_samples_of_any_width_are_read_as_stored(bits: int, purpose: Any) -> None:
    pixels = IMAGE >> (8 - bits)
    found = section(by_hand(pixels, bits, 0), purpose=purpose)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_is_shown_for_images_and_holds_ids_for_masks(bits: int) -> None:
    pixels = IMAGE >> (8 - bits)
    greys = 255 - np.arange(1 << bits, dtype=np.uint8)
    data = by_hand(pixels, bits, 3, PLTE=np.repeat(greys, 3).tobytes())
    np.testing.assert_array_equal(section(data), 255 - pixels)
    np.testing.assert_array_equal(section(data, purpose="mask"), pixels)
    colours = np.arange(3 << bits, dtype=np.uint8)
    data = by_hand(pixels, bits, 3, PLTE=colours.tobytes())
    assert "palette" in refusal(data)
    np.testing.assert_array_equal(section(data, purpose="mask"), pixels)


def test_sixteen_bits() -> None:
    found = section(png(WIDE))
    assert found.dtype == np.dtype("=u2")
    np.testing.assert_array_equal(found, WIDE)


@pytest.mark.parametrize("pixels", [IMAGE, WIDE], ids=["8 bit", "16 bit"])
@pytest.mark.parametrize("num_samples", [2, 3, 4])
def test_grey_in_channels_that_agree(num_samples: int, pixels: np.ndarray) -> None:
    samples = [pixels] * num_samples
    if num_samples in (2, 4):
        samples[-1] = np.full_like(pixels, np.iinfo(pixels.dtype).max)
    data = imagecodecs.png_encode(np.stack(samples, -1))
    found = section(data)
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)
    assert any(f"{num_samples} channels" in note for note in opened(data).notes)
    if num_samples in (2, 4):
        samples[-1] = samples[-1] - 1
        assert "transparent" in refusal(imagecodecs.png_encode(np.stack(samples, -1)))


@pytest.mark.parametrize("pixels", [IMAGE, WIDE], ids=["8 bit", "16 bit"])
def test_colour_is_refused_unless_a_channel_is_named(pixels: np.ndarray) -> None:
    data = imagecodecs.png_encode(np.stack([pixels, ~pixels, pixels], -1))
    assert "colour" in refusal(data)
    np.testing.assert_array_equal(section(data, channel=1), ~pixels)
    assert "3 channels" in refusal(data, channel=3)
    assert "one channel" in refusal(png(pixels), channel=1)
    np.testing.assert_array_equal(section(png(pixels), channel=1, purpose="mask"), pixels)


def test_a_value_that_is_transparent_is_refused_for_images() -> None:
    data = by_hand(IMAGE, 8, 0, tRNS=struct.pack(">H", int(IMAGE[3, 3])))
    assert "transparent" in refusal(data)
    np.testing.assert_array_equal(section(data, purpose="mask"), IMAGE)
    unused = IMAGE // 2
    np.testing.assert_array_equal(section(by_hand(unused, 8, 0, tRNS=b"\0\xff")), unused)
    palette = np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes()
    assert "transparent" in refusal(by_hand(IMAGE, 8, 3, PLTE=palette, tRNS=b"\xff\0"))
    np.testing.assert_array_equal(section(by_hand(IMAGE, 8, 3, PLTE=palette, tRNS=b"\xff")), IMAGE)


@pytest.mark.parametrize("purpose", ["image", "mask"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_turned_as_in_tiff(orientation: int, purpose: Any) -> None:
    picture = Image.fromarray(IMAGE)
    exif = picture.getexif()
    exif[274] = orientation
    upright = section(encoded(Image.fromarray(IMAGE), "TIFF", tiffinfo={274: orientation}))
    found = section(encoded(picture, exif=exif), purpose=purpose)
    np.testing.assert_array_equal(found, upright)
    assert found.shape == ((44, 30) if orientation >= 5 else (30, 44))


def test_a_resolution_for_printers_is_no_size() -> None:
    assert opened(encoded(Image.fromarray(IMAGE), dpi=(300, 300))).pixel_size_nm is None
    assert opened(png(IMAGE)).pixel_size_nm is None
    stated = struct.pack(">IIB", 250_000_000, 200_000_000, 1)
    size = opened(by_hand(IMAGE, 8, 0, pHYs=stated)).pixel_size_nm
    assert size == pytest.approx((5, 4))


def test_sizes_are_checked_before_pixels_are_read() -> None:
    bomb = by_hand(np.zeros((1, 1), np.uint8), 8, 0)
    huge = bomb[:16] + struct.pack(">II", 1 << 15, 1 << 15) + bomb[24:]
    assert "32768 x 32768 px" in refusal(huge)
    four = imagecodecs.png_encode(np.zeros((64, 64, 4), np.uint16))
    assert "8 bytes each" in refusal(four, 64 * 64)


def test_damaged_files_raise_nothing_but_image_errors() -> None:
    text = PngInfo()
    text.add_text("a", "b" * 100, zip=True)
    files = [
        png(IMAGE),
        png(WIDE),
        encoded(Image.fromarray(IMAGE > 9), pnginfo=text),
        by_hand(IMAGE, 8, 3, PLTE=bytes(range(256)) * 3, tRNS=b"\xff"),
        imagecodecs.png_encode(np.stack([WIDE] * 3, -1)),
    ]
    assert 0.3 < refused_when_damaged(files) < 1


def test_pictures_that_move_are_refused() -> None:
    pictures = [Image.fromarray(IMAGE), Image.fromarray(255 - IMAGE)]
    data = encoded(pictures[0], save_all=True, append_images=pictures[1:])
    assert "animated" in refusal(data)
