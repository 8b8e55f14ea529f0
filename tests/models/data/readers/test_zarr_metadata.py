"""Metadata of Zarr arrays that are wrong, or need what is not read, are refused in words."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.data.readers.limits import ImageError
from models.data.readers.places import LocalPlace
from models.data.readers.zarr_metadata import ArrayLayout, read_node

V2: dict[str, Any] = {
    "zarr_format": 2,
    "shape": [8, 8],
    "chunks": [4, 8],
    "dtype": "<u2",
    "fill_value": 3,
    "order": "C",
    "filters": None,
    "compressor": {"id": "zstd", "level": 0, "checksum": False},
}
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
V3: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [8, 8],
    "data_type": "uint16",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 8]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 3,
    "codecs": [BYTES, {"name": "zstd", "configuration": {"level": 0}}],
}
CHECKSUM = {"name": "crc32c"}


def sharding(**changes: Any) -> list[dict[str, Any]]:
    settings = {"chunk_shape": [2, 4], "codecs": [BYTES], "index_codecs": [BYTES, CHECKSUM]}
    return [{"name": "sharding_indexed", "configuration": settings | changes}]


def layout_of(folder: Path, said: dict[str, Any] | str) -> ArrayLayout:
    name = ".zarray" if isinstance(said, dict) and said.get("zarr_format") == 2 else "zarr.json"
    (folder / name).write_text(said if isinstance(said, str) else json.dumps(said))
    node = read_node(LocalPlace.of(folder))
    assert node is not None
    assert node.array is not None
    return node.array


def test_both_versions_say_the_same(tmp_path: Path) -> None:
    second, third = layout_of(tmp_path, V2), None
    (tmp_path / ".zarray").unlink()
    third = layout_of(tmp_path, V3)
    for layout in (second, third):
        assert (layout.shape, layout.chunk, layout.file_shape) == ((8, 8), (4, 8), (4, 8))
        assert (layout.dtype, layout.fill, layout.packing.compressor) == (np.uint16, 3, "zstd")
    assert (second.key((1, 0)), third.key((1, 0))) == ("1.0", "c/1/0")


@pytest.mark.parametrize(
    ("dtype", "said", "value"),
    [
        ("uint16", None, 0),
        ("bool", True, 1),
        ("float32", "NaN", math.nan),
        ("float32", "-Infinity", -math.inf),
        ("float32", "0x40490fdb", math.pi),
        ("int16", -5, -5),
    ],
)
def test_fill_values(tmp_path: Path, dtype: str, said: object, value: float) -> None:
    layout = layout_of(tmp_path, V3 | {"data_type": dtype, "fill_value": said})
    assert float(layout.fill) == pytest.approx(value, nan_ok=True)  # type: ignore[arg-type]


def test_shards(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, V3 | {"codecs": sharding()})
    assert layout.shards is not None
    assert (layout.chunk, layout.file_shape, layout.shards.grid) == ((2, 4), (4, 8), (2, 2))
    assert layout.shards.index.max_packed_bytes == 2 * 2 * 16 + 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": [-1, 8]}, "shape"),
        ({"shape": ["8", "x"]}, "shape"),
        ({"shape": [2**70, 8]}, "shape"),
        ({"shape": [8]}, "1 axes"),
        ({"chunks": [0, 8]}, "chunks"),
        ({"dtype": "|O"}, r"\|O"),
        ({"dtype": "<u3"}, "<u3"),
        ({"dtype": "<M8[ns]"}, "M8"),
        ({"dtype": [["a", "<u2"]]}, "dtype"),
        ({"dtype": "|S9999999"}, "S9999999"),
        ({"order": "K"}, "order"),
        ({"fill_value": "AAAA"}, "fill value"),
        ({"fill_value": 70000}, "fill value"),
        ({"fill_value": {}}, "fill value"),
        ({"dimension_separator": "a"}, "dimension_separator"),
        ({"compressor": {"id": "bz2"}}, "bz2.* zlib"),
        ({"compressor": {}}, "zstd"),
        ({"filters": [{"id": "pickle"}]}, "pickle"),
        ({"filters": [{"id": "vlen-utf8"}]}, "vlen-utf8"),
        ({"filters": [{"id": "delta", "dtype": "O"}]}, "dtype"),
        ({"filters": [{"id": "delta", "dtype": "(1000000,)u1"}]}, "dtype"),
        ({"filters": [{"id": "delta"}]}, "delta"),
        ({"filters": [{"id": "fixedscaleoffset", "dtype": "f4", "scale": 0, "offset": 0}]}, "by 0"),
        ({"filters": [{"id": "gzip"}, {"id": "zlib"}]}, "twice"),
        ({"filters": [{"id": "shuffle", "elementsize": 0}]}, "elementsize"),
    ],
)
def test_wrong_metadata_of_version_2(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ImageError, match=said):
        layout_of(tmp_path, V2 | change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"zarr_format": 4}, "zarr_format"),
        ({"node_type": "table"}, "node_type"),
        ({"data_type": "string"}, "string"),
        ({"data_type": {"name": "numpy.datetime64"}}, "datetime64"),
        ({"chunk_grid": {"name": "rectangular"}}, "chunk_grid"),
        ({"chunk_key_encoding": {"name": "fancy"}}, "chunk_key_encoding"),
        ({"storage_transformers": [{"name": "x"}]}, "storage_transformers"),
        ({"extension": {"name": "x"}}, "extension"),
        ({"codecs": []}, "codecs"),
        ({"codecs": [{"name": "vlen-utf8"}]}, "vlen-utf8"),
        ({"codecs": [BYTES, {"name": "zfp"}]}, "zfp"),
        ({"codecs": [BYTES, {"name": "gzip"}, {"name": "gzip"}]}, "twice"),
        ({"codecs": [{"name": "transpose", "configuration": {"order": [0, 0]}}, BYTES]}, "transp"),
        ({"codecs": [*sharding(), CHECKSUM]}, "shards"),
        ({"codecs": sharding(codecs=sharding())}, "shards in shards"),
        ({"codecs": sharding(chunk_shape=[3, 4])}, "divide"),
        ({"codecs": sharding(chunk_shape=[2])}, "divide"),
        ({"codecs": sharding(index_location="middle")}, "index_location"),
        ({"codecs": sharding(index_codecs=[BYTES, {"name": "gzip"}])}, "index"),
    ],
)
def test_wrong_metadata_of_version_3(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ImageError, match=said):
        layout_of(tmp_path, V3 | change)


def test_extensions_that_need_not_be_understood(tmp_path: Path) -> None:
    layout_of(tmp_path, V3 | {"consolidated_metadata": {"must_understand": False}})
    layout_of(tmp_path, V3 | {"codecs": ["bytes", "crc32c"], "attributes": {"a": 1}})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ImageError, match=r"zarr\.json"):
        layout_of(tmp_path, text)


def test_a_group_needs_no_file_of_its_own(tmp_path: Path) -> None:
    assert read_node(LocalPlace.of(tmp_path)) is None
    (tmp_path / ".zattrs").write_text('{"multiscales": []}')
    node = read_node(LocalPlace.of(tmp_path))
    assert node is not None
    assert (node.array, node.attributes) == (None, {"multiscales": []})
