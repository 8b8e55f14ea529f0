"""Zarr arrays as stacks: each way of writing them, pixel by pixel, at each kind of place."""

import io
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs.numcodecs
from numcodecs import LZ4, Blosc, Delta, FixedScaleOffset, GZip, Shuffle, Zlib, Zstd
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)

from models.data.readers import volume
from models.data.readers.formats import open_stack
from models.data.readers.limits import Array, ImageError
from models.data.readers.places import LocalPlace, PlacedFile
from models.data.readers.remote import open_place
from models.data.readers.stack import Ask, ReadOptions, Stack
from models.data.readers.zarr_array import open_zarr
from models.data.readers.zarr_chunks import Tally
from models.data.readers.zip_place import ZipPlace
from tests.app.files import zipped
from tests.s3 import S3Server

MANY = 1 << 20
SHAPE = (11, 23, 29)
CHUNKS = (4, 8, 16)


def volume_of(dtype: str = "uint16", shape: tuple[int, ...] = SHAPE) -> Array:
    rng = np.random.default_rng(1)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, 200, shape).astype(dtype)


def stack_at(folder: Path, ask: Ask | None = None) -> Iterator[Stack]:
    with open_stack(folder, ask or Ask(MANY)) as stack:
        yield stack


def sections_of(folder: Path, **options: object) -> Array:
    ask = Ask(MANY, options=ReadOptions.model_validate(options))
    with open_stack(folder, ask) as stack:
        sections = list(stack.sections)
        assert len(sections) == stack.num_sections
        assert all(section.dtype.isnative for section in sections)
        return np.stack(sections)


def numcodec(name: str, **settings: Any) -> Any:
    with pytest.warns(UserWarning, match="Numcodecs"):
        return getattr(zarr.codecs.numcodecs, name)(**settings)


V2 = {"zarr_format": 2}
SHARDS = {"chunks": CHUNKS, "shards": (8, 16, 32)}
LAYOUTS: dict[str, dict[str, Any]] = {
    "v2": V2,
    "v2, by slashes": V2 | {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v2, Fortran order": V2 | {"order": "F"},
    "v2, unpacked": V2 | {"compressors": None},
    "v2, zlib": V2 | {"compressors": Zlib()},
    "v2, gzip": V2 | {"compressors": GZip()},
    "v2, zstd": V2 | {"compressors": Zstd()},
    "v2, zstd with checksum": V2 | {"compressors": Zstd(checksum=True)},
    "v2, lz4": V2 | {"compressors": LZ4()},
    "v2, blosc": V2 | {"compressors": Blosc("lz4", shuffle=Blosc.SHUFFLE)},
    "v2, blosc bits": V2 | {"compressors": Blosc("zstd", shuffle=Blosc.BITSHUFFLE)},
    "v2, delta": V2 | {"filters": [Delta("<u2")]},
    "v2, delta in int32": V2 | {"filters": [Delta("<u2", "<i4")]},
    "v2, delta and Fortran order": V2 | {"filters": [Delta("<u2")], "order": "F"},
    "v2, shuffle": V2 | {"filters": [Shuffle(2)]},
    "v2, scaled": V2 | {"filters": [FixedScaleOffset(10, 1, "<u2", "<i4")]},
    "v2, one chunk": V2 | {"chunks": SHAPE},
    "v2, by section": V2 | {"chunks": (1, *SHAPE[1:])},
    "v3": {},
    "v3, by points": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "v3, keys of v2": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "v3, unpacked": {"compressors": None},
    "v3, blosc": {"compressors": BloscCodec(cname="zstd")},
    "v3, gzip": {"compressors": GzipCodec()},
    "v3, zstd with checksum": {"compressors": ZstdCodec(checksum=True)},
    "v3, checksums": {"compressors": [ZstdCodec(), Crc32cCodec()]},
    "v3, checksums inside": {"compressors": [Crc32cCodec(), GzipCodec()]},
    "v3, big endian": {"serializer": BytesCodec(endian="big")},
    "v3, transposed": {"filters": [TransposeCodec(order=(2, 0, 1))]},
    "v3, shards": SHARDS,
    "v3, shards, checksums": SHARDS | {"compressors": [ZstdCodec(), Crc32cCodec()]},
    "v3, shards, transposed": SHARDS | {"filters": [TransposeCodec(order=(2, 0, 1))]},
    "v3, shards, unpacked": SHARDS | {"compressors": None},
    "v3, shards, index first": {
        "chunks": (8, 16, 32),
        "serializer": ShardingCodec(chunk_shape=CHUNKS, index_location="start"),
        "compressors": None,
    },
}


def write(folder: Path, array: Array, **options: Any) -> Path:
    zarr.create_array(str(folder), data=array, **({"chunks": CHUNKS} | options))
    return folder


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_each_layout_is_read_pixel_by_pixel(tmp_path: Path, layout: dict[str, Any]) -> None:
    array = volume_of()
    folder = write(tmp_path / "a.zarr", array, **layout)
    np.testing.assert_array_equal(sections_of(folder), array)
    cut = sections_of(folder, axis="x", start=3, stop=21, step=5)
    np.testing.assert_array_equal(cut, array.transpose(2, 0, 1)[3:21:5])


@pytest.mark.parametrize("name", ["Zlib", "LZ4", "Delta", "Shuffle"])
def test_codecs_of_version_2_in_version_3(tmp_path: Path, name: str) -> None:
    array = volume_of()
    settings = {"Delta": {"dtype": "<u2"}, "Shuffle": {"elementsize": 2}}.get(name, {})
    codec = numcodec(name, **settings)
    folder = write(
        tmp_path / "a", array, **{"filters" if name == "Delta" else "compressors": [codec]}
    )
    np.testing.assert_array_equal(sections_of(folder), array)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "<u4", "float16", "float32", ">u2", ">f4"]
)
@pytest.mark.parametrize("version", [2, 3])
def test_each_dtype_is_read(tmp_path: Path, dtype: str, version: int) -> None:
    array = volume_of(dtype)
    folder = write(tmp_path / "a", array, zarr_format=version)
    found = sections_of(folder)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == ("float32" if dtype == "float16" else array.dtype.newbyteorder("="))


@pytest.mark.parametrize("axis", ["z", "y", "x"])
@pytest.mark.parametrize(
    ("start", "stop", "step"), [(0, None, 1), (2, 9, 3), (7, 8, 1), (5, 99, 9)]
)
@pytest.mark.parametrize("slab_bytes", [1, 3000, 1 << 20])
@pytest.mark.parametrize("shards", [None, (8, 16, 32)])
def test_sections_along_each_axis(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    axis: str,
    start: int,
    stop: int | None,
    step: int,
    slab_bytes: int,
    shards: tuple[int, ...] | None,
) -> None:
    monkeypatch.setattr(volume, "SLAB_BYTES", slab_bytes)
    array = volume_of()
    folder = write(tmp_path / "a", array, shards=shards)
    expected = np.moveaxis(array, "zyx".index(axis), 0)[start:stop:step]
    found = sections_of(folder, axis=axis, start=start, stop=stop, step=step)
    np.testing.assert_array_equal(found, expected)


def test_one_section_and_outer_axes_of_length_one(tmp_path: Path) -> None:
    array = volume_of()
    flat = write(tmp_path / "flat", array[0], chunks=(8, 16))
    np.testing.assert_array_equal(sections_of(flat), array[:1])
    deep = write(tmp_path / "deep", array[None, None], chunks=(1, 1, *CHUNKS))
    np.testing.assert_array_equal(sections_of(deep), array)
    with pytest.raises(ImageError, match="along x"):
        sections_of(flat, axis="x")


@pytest.mark.parametrize(
    ("shape", "names", "said"),
    [
        ((3, *SHAPE), None, r"\(H, W\) or \(N, H, W\)"),
        ((3,), None, r"\(H, W\) or \(N, H, W\)"),
        ((3, 4, 5), ("c", "y", "x"), "channel"),
        ((3, 4, 5, 6), ("t", "c", "y", "x"), "several volumes, 3 along its axis t and 4"),
        ((0, 4, 5), None, "holds no image"),
    ],
)
def test_axes_that_are_no_volume_are_refused(
    tmp_path: Path, shape: tuple[int, ...], names: tuple[str, ...] | None, said: str
) -> None:
    folder = str(tmp_path / "a")
    zarr.create_array(folder, shape=shape, dtype="uint8", dimension_names=names)
    with pytest.raises(ImageError, match=said):
        sections_of(tmp_path / "a")


def test_names_of_axes_say_their_order(tmp_path: Path) -> None:
    array = volume_of()
    turned = write(
        tmp_path / "a", array.transpose(2, 0, 1), dimension_names=["x", "z", "y"], chunks=(16, 4, 8)
    )
    np.testing.assert_array_equal(sections_of(turned), array)
    both = np.stack([array, 255 - array])
    channels = write(
        tmp_path / "c", both, dimension_names=["c", "z", "y", "x"], chunks=(2, *CHUNKS)
    )
    np.testing.assert_array_equal(sections_of(channels, channel=1), 255 - array)
    with pytest.raises(ImageError, match="none with the number 2"):
        sections_of(channels, channel=2)


def test_the_same_pixels_from_a_folder_a_zip_and_a_bucket(tmp_path: Path, s3: S3Server) -> None:
    array = volume_of()
    for name, shards in (("chunks", None), ("shards", (8, 16, 32))):
        folder = write(tmp_path / name, array, shards=shards)
        s3.put_folder("cells", f"d/{name}.zarr", folder)
        deflated = io.BytesIO()
        with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in folder.rglob("*"):
                archive.write(path, f"outer/{name}.zarr/{path.relative_to(folder)}")
        places = (
            LocalPlace.of(folder),
            ZipPlace(io.BytesIO(zipped(folder))),
            ZipPlace(deflated),
            open_place(f"s3://cells/d/{name}.zarr"),
        )
        for place, axis in itertools.product(places, "zx"):
            ask = Ask(
                MANY, options=ReadOptions.model_validate({"axis": axis, "start": 3, "stop": 9})
            )
            with open_zarr(place, ask) as stack:
                found = np.stack(list(stack.sections))
            np.testing.assert_array_equal(found, np.moveaxis(array, "zyx".index(axis), 0)[3:9])


def test_each_chunk_is_read_once_whatever_its_shape(tmp_path: Path) -> None:
    array = volume_of("uint8", (64, 64, 64))
    for chunks, shards in (
        ((1, 64, 64), None),
        ((16, 16, 16), None),
        ((64, 64, 64), None),
        ((16, 16, 16), (32, 32, 64)),
    ):
        folder = tmp_path / str((chunks, shards))
        zarr.create_array(str(folder), data=array, chunks=chunks, shards=shards, compressors=None)
        for axis in ("z", "y", "x"):
            tally = Tally()
            ask = Ask(MANY, options=ReadOptions.model_validate({"axis": axis}))
            with open_zarr(LocalPlace.of(folder), ask, tally) as stack:
                sections = list(stack.sections)
            used = sum(section.nbytes for section in sections)
            assert used == array.nbytes
            assert tally.bytes_unpacked == used
            assert used <= tally.bytes_read < 1.3 * used  # an index lies beside the chunks


def test_sections_that_are_skipped_are_not_read(tmp_path: Path) -> None:
    array = volume_of("uint8", (64, 64, 64))
    folder = write(tmp_path / "a", array, chunks=(16, 16, 16), compressors=None)
    tally = Tally()
    ask = Ask(MANY, options=ReadOptions(start=20, stop=24))
    with open_zarr(LocalPlace.of(folder), ask, tally) as stack:
        np.testing.assert_array_equal(np.stack(list(stack.sections)), array[20:24])
    assert tally.bytes_unpacked == array.nbytes // 4


def test_chunks_that_are_missing_hold_the_fill_value_and_are_told(tmp_path: Path) -> None:
    array = volume_of("uint8", (16, 32, 32))
    folder = write(tmp_path / "a", array, chunks=(4, 32, 32), fill_value=7)
    with open_stack(folder, Ask(MANY)) as stack:
        assert stack.notes == ()
    for chunk in ("0", "2"):
        (folder / "c" / chunk / "0" / "0").unlink()
    with open_stack(folder, Ask(MANY)) as stack:
        (note,) = stack.notes
        found = np.stack(list(stack.sections))
    assert "50%" in note
    assert (found[:4] == 7).all()
    assert (found[8:12] == 7).all()
    np.testing.assert_array_equal(found[4:8], array[4:8])
    with open_stack(folder, Ask(MANY, "mask")) as stack:
        assert stack.notes == ()
    whole = Ask(MANY, options=ReadOptions(start=4, stop=8))
    with open_stack(folder, whole) as stack:
        assert stack.notes == ()
    with (
        pytest.raises(ImageError, match="none of the chunks"),
        open_stack(folder, Ask(MANY, options=ReadOptions(stop=4))),
    ):
        pass


def metadata_of(folder: Path, **changes: Any) -> Path:
    path = folder / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("dtype", ["complex128", "float64", "int64", "uint64", "complex64"])
def test_a_dtype_is_refused_by_the_metadata_alone(tmp_path: Path, dtype: str) -> None:
    side = 1 << 14
    zarr.create_array(str(tmp_path / "a"), shape=(side, side), chunks=(side, side), dtype=dtype)
    with (
        pytest.raises(ImageError, match=dtype),
        open_stack(tmp_path / "a", Ask(1 << 28)),
    ):
        pass


def test_masks_hold_whole_numbers(tmp_path: Path) -> None:
    for dtype in ("bool", "int64", "uint32"):
        array = volume_of(dtype)
        folder = write(tmp_path / dtype, array)
        with open_stack(folder, Ask(MANY, "mask")) as stack:
            np.testing.assert_array_equal(np.stack(list(stack.sections)), array)
    with (
        pytest.raises(ImageError, match="complex64"),
        open_stack(write(tmp_path / "c", volume_of("complex64")), Ask(MANY, "mask")),
    ):
        pass


@pytest.mark.parametrize(
    ("shape", "chunks", "said"),
    [
        ((5, 70_000, 70_000), (1, 64, 64), "70000 x 70000"),
        ((2**40, 1024, 1024), (1, 1024, 1024), "1099511627776 chunks"),
        ((10, 1024, 1024), (1, 1, 2), "chunks"),
        ((10**6, 1024, 1024), (10**6, 1024, 1024), "chunks of 1000000 x 1024 x 1024"),
    ],
)
def test_sizes_are_bounded_by_the_metadata(
    tmp_path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], said: str
) -> None:
    zarr.create_array(str(tmp_path / "a"), shape=shape, chunks=chunks, dtype="uint8")
    with pytest.raises(ImageError, match=said), open_stack(tmp_path / "a", Ask(1 << 21)):
        pass


def test_damaged_shards_and_checksums_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", volume_of(), shards=(16, 24, 32))
    (shard,) = [path for path in (folder / "c").rglob("*") if path.is_file()]
    data = shard.read_bytes()
    for damaged, said in (
        (data[:-20], "checksum"),
        (data[:10], "shorter than its index"),
        (data[100:], "damaged|ends before"),
        (data[:50] + bytes(50) + data[100:], "damaged"),
    ):
        shard.write_bytes(damaged)
        with pytest.raises(ImageError, match=said):
            sections_of(folder)
        with pytest.raises(ImageError, match=said):
            sections_of(folder, stop=1)


@pytest.mark.parametrize("where", ["chunk", "metadata"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, where: str) -> None:
    folder = write(tmp_path / "a", volume_of())
    path = folder / ("zarr.json" if where == "metadata" else "c/0/0/0")
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    inside = PlacedFile(LocalPlace.of(tmp_path / "a"), "")
    for name in ("image", "mask"):
        with (
            pytest.raises(ImageError, match="leads out"),
            open_stack(inside, Ask(MANY, name)) as stack,
        ):
            list(stack.sections)
    assert len(sections_of(folder)) == SHAPE[0]  # a user's own


def test_what_no_codec_of_ours_reads_is_named(tmp_path: Path) -> None:
    array = volume_of()
    for name, options in (
        ("bz2", V2 | {"compressors": numcodecs.BZ2()}),
        ("lzma", V2 | {"compressors": numcodecs.LZMA()}),
    ):
        folder = write(tmp_path / name, array, **options)
        with pytest.raises(ImageError, match=f"{name}.* zstd"):
            sections_of(folder)
