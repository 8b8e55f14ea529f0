"""The torch-free readers: what they yield, and that damage is always said in words."""

import io
import json
import random
import re
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from models.data.images import check_mask_size, decode_image, png_bytes
from models.data.readers.formats import section_name
from models.data.readers.limits import ImageError
from tests.app.files import encoded, grey, png, tiff, write_zarr, zipped
from tests.models.data.reading import read_sections

MANY = 1 << 20


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("a.png", "a"),
        ("A.B.TIFF", "A.B"),
        ("stack.zarr.zip", "stack"),
        ("stack.zip", "stack"),
        ("folder/sub/a.tif", "a"),
        (r"C:\em\a.tif", "a"),
        (".png", ".png"),
        ("plain", "plain"),
        ("a.ome.tif", "a.ome"),
    ],
)
def test_names_images_and_masks_are_paired_by(file_name: str, name: str) -> None:
    assert section_name(file_name) == name


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_round_trip(dtype: str) -> None:
    image = grey(1, 7, 5, dtype)
    np.testing.assert_array_equal(decode_image(png_bytes(image), MANY), image)


def test_sections_come_one_at_a_time_in_native_byte_order() -> None:
    stack = np.stack([grey(n, 6, 4, "uint16") for n in range(3)])
    sections = list(read_sections(io.BytesIO(tiff(stack, byteorder=">")), MANY))
    np.testing.assert_array_equal(sections, stack)
    assert {section.dtype for section in sections} == {np.dtype("=u2")}


def test_a_palette_picture_is_an_image_only_if_its_colours_are_its_indices() -> None:
    image = grey(1, 6, 4)
    palette = Image.fromarray(image).convert("P")
    np.testing.assert_array_equal(decode_image(encoded(palette), MANY), image)
    palette.putpalette([255 - value // 3 for value in range(768)])
    inverted = encoded(palette)
    with pytest.raises(ImageError, match="is a P picture"):
        decode_image(inverted, MANY)
    (indices,) = read_sections(io.BytesIO(inverted), MANY, purpose="mask")
    np.testing.assert_array_equal(indices, image)


def test_sizes_are_checked_before_pixels_are_read(tmp_path: Path) -> None:
    image = grey(1, 10, 10)
    (tmp_path / "z").mkdir()
    files = [
        io.BytesIO(png(image)),
        io.BytesIO(tiff(image)),
        io.BytesIO(zipped(write_zarr(tmp_path / "z" / "a", image))),
        tmp_path / "z" / "a",
    ]
    for file in files:
        with pytest.raises(ImageError, match="10 x 10 px.* 99 pixels"):
            list(read_sections(file, 99))
    assert len(list(read_sections(tmp_path / "z" / "a", 100))) == 1


def test_a_group_is_no_array(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "g"))
    with pytest.raises(ImageError, match="its root must be one array"):
        list(read_sections(tmp_path / "g", MANY))


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        list(read_sections(tmp_path / "gone.png", MANY))


def test_a_mask_of_another_size_is_refused() -> None:
    mask = np.zeros((2, 3), np.uint8)
    check_mask_size(mask, (2, 3))
    with pytest.raises(ImageError, match="2 x 3 px.* 3 x 2 px"):
        check_mask_size(mask, (3, 2))


def _tiff_of(*options: dict) -> list[bytes]:
    image = grey(2, 32, 32, "uint16")
    return [tiff(image, **option) for option in options]


def test_damaged_files_of_every_kind_raise_nothing_but_image_errors(tmp_path: Path) -> None:
    image = grey(1, 32, 32)
    files = [png(image), png(grey(1, 32, 32, "uint16")), encoded(Image.fromarray(image > 9))]
    files += _tiff_of(
        {}, {"compression": "zlib"}, {"bigtiff": True}, {"tile": (16, 16), "compression": "zlib"}
    )
    for index, options in enumerate(
        ({}, {"compressors": None}, {"zarr_format": 2}, {"compressors": zarr.codecs.GzipCodec()})
    ):
        files.append(zipped(write_zarr(tmp_path / str(index), image, **options)))
    rng, refused = random.Random(0), 0
    for whole in files:
        for _ in range(60):
            damaged = bytearray(whole)
            if rng.random() < 0.3:
                del damaged[rng.randrange(len(damaged)) :]
            for _ in range(rng.randint(1, 6)):
                if damaged:
                    damaged[rng.randrange(min(len(damaged), 400))] = rng.randrange(256)
            try:
                list(read_sections(io.BytesIO(damaged), MANY))
            except ImageError:
                refused += 1
    assert refused > 30 * len(files)


def test_pages_of_several_kinds_in_one_tiff() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(grey(1, 8, 8), photometric="minisblack")
        writer.write(np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    sections = read_sections(io.BytesIO(buffer.getvalue()), MANY)
    np.testing.assert_array_equal(next(sections), grey(1, 8, 8))
    with pytest.raises(ImageError, match="has 3 channels"):
        next(sections)


BOMB_BYTES = 64 << 20
ZEROS = np.zeros(BOMB_BYTES, np.uint8)


@contextmanager
def _little_memory() -> Iterator[None]:
    """What happens inside takes less than an eighth of what a bomb unpacks into."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < BOMB_BYTES // 8
    finally:
        tracemalloc.stop()


def _zarr_bomb(chunk: bytes, **changes: object) -> bytes:
    """A zipped Zarr v2 of one 8 x 8 chunk."""
    metadata = {
        "zarr_format": 2,
        "shape": [8, 8],
        "chunks": [8, 8],
        "dtype": "|u1",
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "compressor": None,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(".zarray", json.dumps(metadata | changes))
        archive.writestr("0.0", chunk)
    return buffer.getvalue()


def _refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as refused, _little_memory():
        list(read_sections(io.BytesIO(data), MANY))
    return str(refused.value)


@pytest.mark.parametrize("name", ["zlib", "gzip", "zstd", "blosc", "lz4"])
def test_a_zarr_chunk_unpacks_into_no_more_than_its_pixels(name: str) -> None:
    codec = numcodecs.get_codec({"id": name})
    config = codec.get_config()
    said = _refusal(_zarr_bomb(codec.encode(ZEROS[: 8 << 20]), compressor=config))
    assert "more pixels than" in said
    said = _refusal(_zarr_bomb(codec.encode(ZEROS), compressor=config))
    assert "more pixels than" in said or "of more than" in said
    image = grey(1, 8, 8)
    good = _zarr_bomb(codec.encode(image), compressor=config)
    (section,) = read_sections(io.BytesIO(good), MANY)
    np.testing.assert_array_equal(section, image)


def test_zarr_filters_and_other_compressors_and_objects_are_refused() -> None:
    gzip = numcodecs.GZip()
    twice = gzip.encode(gzip.encode(ZEROS))
    config = gzip.get_config()
    bomb = _zarr_bomb(twice, filters=[config], compressor=config)
    assert "Zarr filters or shards" in _refusal(bomb)
    packed = _zarr_bomb(numcodecs.BZ2().encode(ZEROS), compressor={"id": "bz2", "level": 1})
    assert re.search("by bz2: .* zlib, gzip", _refusal(packed))
    objects = _zarr_bomb(b"", dtype="|O", filters=[{"id": "vlen-utf8"}])
    assert "dtype" in _refusal(objects)


def test_a_member_of_the_zip_that_lies_about_its_size_is_refused() -> None:
    assert "of more than" in _refusal(_zarr_bomb(bytes(ZEROS)))
    bomb = bytearray(_zarr_bomb(bytes(ZEROS)))
    entry = bomb.rindex(b"PK\x01\x02")
    bomb[entry + 24 : entry + 28] = struct.pack("<I", 64)
    with _little_memory(), pytest.raises(ImageError):
        list(read_sections(io.BytesIO(bomb), MANY))


@pytest.mark.parametrize("how", ["zlib strip", "zlib tile", "packbits strip"])
def test_a_tiff_strip_unpacks_into_no_more_than_its_pixels(how: str) -> None:
    image = grey(1, 16, 16)
    tile = (16, 16) if "tile" in how else None
    if "packbits" in how:
        data = encoded(Image.fromarray(image), "TIFF", compression="packbits")
    else:
        data = tiff(image, compression="zlib", tile=tile)
    (section,) = read_sections(io.BytesIO(data), MANY)
    np.testing.assert_array_equal(section, image)
    bomb = zlib.compress(bytes(ZEROS)) if "zlib" in how else b"\x81\0" * (1 << 16)
    data = data.ljust(-(-len(data) // 2) * 2, b"\0")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        kind = "Tile" if tile else "Strip"
        tags = file.pages[0].tags
        places = {f"{kind}Offsets": len(data), f"{kind}ByteCounts": len(bomb)}
        at = {tags[name].offset: (tags[name].code, value) for name, value in places.items()}
    changed = bytearray(data + bomb)
    for offset, (code, value) in at.items():
        changed[offset : offset + 12] = struct.pack("<HHII", code, 4, 1, value)
    assert "more pixels than" in _refusal(bytes(changed))


def test_a_tiff_of_another_compression_is_refused_in_words() -> None:
    data = bytearray(tiff(grey(1), compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        offset = file.pages[0].tags["Compression"].valueoffset
    data[offset : offset + 2] = struct.pack("<H", 34925)
    assert re.search("by LZMA: .* deflate, packbits", _refusal(bytes(data)))


def test_one_image_to_predict_is_no_zip() -> None:
    with pytest.raises(ImageError, match="zip file"):
        decode_image(_zarr_bomb(bytes(64)), MANY)
