"""One page of a TIFF: what it shows, and that it unpacks into no more than it declares."""

import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from models.data.readers.limits import ImageError
from tests.app.files import encoded, grey, tiff
from tests.models.data.readers.files import (
    BOMB_BYTES,
    MANY,
    ZEROS,
    little_memory,
    refusal,
    with_tags,
)
from tests.models.data.reading import read_sections

IMAGE = grey(1, 32, 48)


def section(data: bytes, **options: Any) -> np.ndarray:
    (found,) = read_sections(io.BytesIO(data), MANY, **options)
    return np.asarray(found)


def written(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("purpose", ["image", "mask"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_white_is_zero_is_shown_as_viewers_show_it(purpose: Any, dtype: str) -> None:
    pixels = IMAGE.astype(dtype)
    negative = ~pixels
    found = section(written(negative, photometric="miniswhite"), purpose=purpose)
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("purpose", ["image", "mask"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_one_bit_is_read_in_both_polarities(purpose: Any, compression: str) -> None:
    bits = IMAGE > 99
    for photometric, pixels in (("minisblack", bits), ("miniswhite", ~bits)):
        data = written(pixels, photometric=photometric, compression=compression)
        found = section(data, purpose=purpose)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, bits)


@pytest.mark.parametrize("bits", [4, 12])
def test_packed_integers(bits: int) -> None:
    pixels = (grey(1, 32, 48, "uint16") >> (16 - bits)).astype("uint8" if bits == 4 else "uint16")
    np.testing.assert_array_equal(section(_packed(pixels, bits)), pixels)


def _packed(pixels: np.ndarray, bits: int) -> bytes:
    """A TIFF by hand: one strip of integers of so many bits."""
    data = imagecodecs.packints_encode(pixels, bits)
    facts = {256: 48, 257: 32, 258: bits, 259: 1, 262: 1, 273: 200, 277: 1, 278: 32, 279: len(data)}
    table = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in facts.items())
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(facts)) + table + bytes(4)
    return head.ljust(200, b"\0") + data


def test_a_palette_is_shown_for_images_and_holds_ids_for_masks() -> None:
    ramp = np.arange(256, dtype=np.uint16) * 257
    for colormap, shown in ((ramp, IMAGE), (ramp[::-1], 255 - IMAGE)):
        data = written(IMAGE, photometric="palette", colormap=np.stack([colormap] * 3))
        np.testing.assert_array_equal(section(data), shown)
        np.testing.assert_array_equal(section(data, purpose="mask"), IMAGE)
    colours = written(IMAGE, photometric="palette", colormap=np.stack([ramp, ramp, ramp[::-1]]))
    assert "palette" in refusal(colours)
    np.testing.assert_array_equal(section(colours, purpose="mask"), IMAGE)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_grey_in_three_channels_is_grey_and_colour_is_refused(planar: str, dtype: str) -> None:
    one = grey(2, 32, 48, dtype)
    axis = -1 if planar == "contig" else 0
    data = written(np.stack([one] * 3, axis), photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(section(data), one)
    colour = written(np.stack([one, one, ~one], axis), photometric="rgb", planarconfig=planar)
    assert "colour" in refusal(colour)
    np.testing.assert_array_equal(section(colour, channel=2), ~one)


def test_opacity_is_no_channel() -> None:
    opaque = np.full_like(IMAGE, 255)
    for pixels, photometric in (
        ([IMAGE, opaque], "minisblack"),
        ([IMAGE, IMAGE, IMAGE, opaque], "rgb"),
    ):
        options = {"photometric": photometric, "extrasamples": ["unassalpha"]}
        options |= {"planarconfig": "contig"}
        np.testing.assert_array_equal(section(written(np.stack(pixels, -1), **options)), IMAGE)
        pixels[-1] = opaque - 1
        assert "transparent" in refusal(written(np.stack(pixels, -1), **options))


def test_two_samples_that_are_no_opacity_are_channels() -> None:
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    data = written(np.stack([IMAGE, 255 - IMAGE], -1), extrasamples=["unspecified"], **options)
    assert "2 channels" in refusal(data)
    np.testing.assert_array_equal(section(data, channel=1), 255 - IMAGE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_turned(orientation: int) -> None:
    data = written(IMAGE, photometric="minisblack", extratags=[(274, 3, 1, orientation, True)])
    for purpose in ("image", "mask"):
        found = section(data, purpose=purpose)
        assert found.shape == ((48, 32) if orientation >= 5 else (32, 48))
        corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0)}
        corner |= {5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
        assert found[corner[orientation]] == IMAGE[0, 0]


def test_dtypes_are_refused_before_pixels_are_read() -> None:
    """A file of some hundred bytes once took gigabytes."""
    tiny = written(np.zeros((8, 8), np.complex128), photometric="minisblack")
    data = with_tags(tiny, ImageWidth=1 << 14, ImageLength=1 << 14, RowsPerStrip=1 << 14)
    assert "complex128" in refusal(data, 1 << 28)


def test_pixels_that_are_not_there_take_no_memory() -> None:
    for compression in (None, "zlib"):
        tiny = written(
            np.zeros((8, 8), np.uint16), photometric="minisblack", compression=compression
        )
        big = {"ImageWidth": 1 << 14, "ImageLength": 1 << 14, "RowsPerStrip": 1 << 14}
        for place in ({}, {"StripOffsets": 0}, {"StripByteCounts": 0}):
            data = with_tags(tiny, **big, **place)
            if compression is None or place:
                assert "cut off" in refusal(data, 1 << 28)


@pytest.mark.parametrize("kind", ["Strip", "Tile"])
@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "packbits"])
def test_a_strip_unpacks_into_no_more_than_its_pixels(compression: str, kind: str) -> None:
    tile = (16, 16) if kind == "Tile" else None
    data = written(IMAGE[:16, :16], photometric="minisblack", compression=compression, tile=tile)
    pack = {
        "zlib": zlib.compress,
        "lzw": imagecodecs.lzw_encode,
        "zstd": imagecodecs.zstd_encode,
        "packbits": lambda zeros: b"\x81\0" * (len(zeros) // 128),
    }
    bomb = pack[compression](ZEROS.tobytes())
    places = {f"{kind}Offsets": len(data), f"{kind}ByteCounts": len(bomb)}
    bombed = with_tags(data, **places) + bomb
    with little_memory():
        try:
            found = section(bombed)
        except ImageError:
            return
    assert not found.any()  # the first pixels were taken, and the rest was left
    assert found.shape == (16, 16)


def test_a_jpeg_in_a_strip_is_no_larger_than_the_strip() -> None:
    picture = Image.fromarray(np.zeros((8192, 8192), np.uint8))
    bomb = encoded(picture, "JPEG")
    data = written(IMAGE[:16, :16], photometric="minisblack", compression="jpeg")
    places = {"StripOffsets": len(data), "StripByteCounts": len(bomb)}
    assert "more pixels" in refusal(with_tags(data, **places) + bomb)
    progressive = encoded(Image.fromarray(IMAGE[:16, :16]), "JPEG", progressive=True)
    places = {"StripOffsets": len(data), "StripByteCounts": len(progressive)}
    assert "baseline" in refusal(with_tags(data, **places) + progressive)


def test_many_small_strips_are_refused() -> None:
    """20,000 strips that each unpacked into 64 kB once took seconds."""
    data = written(np.zeros((140_000, 1), np.uint8), photometric="minisblack", rowsperstrip=1)
    assert "140000 strips" in refusal(data)


def test_sizes_are_checked_before_pixels_are_read() -> None:
    assert "1535 pixels" in refusal(tiff(IMAGE), 32 * 48 - 1)
    tiled = with_tags(tiff(IMAGE, tile=(16, 16)), TileWidth=1 << 15, TileLength=1 << 15)
    assert "chunks" in refusal(tiled)
    assert BOMB_BYTES < 1 << 30


@pytest.mark.parametrize(("code", "name"), [(34925, "LZMA"), (34712, "JPEG2000"), (6, "OJPEG")])
def test_another_compression_is_refused_in_words(code: int, name: str) -> None:
    said = refusal(with_tags(tiff(IMAGE, compression="zlib"), Compression=code))
    assert f"by {name}" in said
    for known in ("deflate", "LZW", "ZSTD"):
        assert known in said


def test_volumes_in_a_page_and_odd_colours_are_refused() -> None:
    volume = written(
        np.zeros((16, 16, 16), np.uint8),
        photometric="minisblack",
        volumetric=True,
        tile=(16, 16, 16),
    )
    assert "volumes" in refusal(volume)
    assert "CIELAB" in refusal(with_tags(tiff(IMAGE), PhotometricInterpretation=8))
