"""Zipped Zarr stores that are damaged, too large or lie about their size: refused in words."""

import io
import json
import random
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

from models.data.readers.limits import ImageError
from tests.app.files import grey, write_zarr, zipped
from tests.models.data.reading import read_sections

MANY = 1 << 20


def test_sizes_are_checked_before_pixels_are_read(tmp_path: Path) -> None:
    image = grey(1, 10, 10)
    (tmp_path / "z").mkdir()
    files = [
        io.BytesIO(zipped(write_zarr(tmp_path / "z" / "a", image))),
        tmp_path / "z" / "a",
    ]
    for file in files:
        with pytest.raises(ImageError, match="10 x 10 px.* 99 pixels"):
            list(read_sections(file, 99))
    assert len(list(read_sections(tmp_path / "z" / "a", 100))) == 1


def test_damaged_files_of_every_kind_raise_nothing_but_image_errors(tmp_path: Path) -> None:
    image = grey(1, 32, 32)
    files = []
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
    assert "compressed twice" in _refusal(bomb)
    packed = _zarr_bomb(numcodecs.BZ2().encode(ZEROS), compressor={"id": "bz2", "level": 1})
    assert re.search("by bz2, .* zlib, gzip", _refusal(packed))
    objects = _zarr_bomb(b"", dtype="|O", filters=[{"id": "vlen-utf8"}])
    assert "dtype" in _refusal(objects)


def test_a_member_of_the_zip_that_lies_about_its_size_is_refused() -> None:
    assert "of more than" in _refusal(_zarr_bomb(bytes(ZEROS)))
    bomb = bytearray(_zarr_bomb(bytes(ZEROS)))
    entry = bomb.rindex(b"PK\x01\x02")
    bomb[entry + 24 : entry + 28] = struct.pack("<I", 64)
    with _little_memory(), pytest.raises(ImageError):
        list(read_sections(io.BytesIO(bomb), MANY))
