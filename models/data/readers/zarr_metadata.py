"""The metadata of Zarr arrays and groups, of versions 2 and 3, as one layout.

Legend: a *chunk* is unpacked as a whole; a *shard* is a file that holds several chunks.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from models.data.readers.limits import ImageError
from models.data.readers.places import DeniedError, Place
from models.data.readers.zarr_codecs import Packing
from models.data.readers.zarr_pipeline import (
    Codec,
    Shards,
    as_codec,
    packing_v2,
    packing_v3,
    shards_of,
)

METADATA_BYTES = 1 << 22
"""The most bytes of a file of metadata."""

_V2_DTYPE = re.compile(r"[<>|=]?[biufc]\d{1,2}")
_V3_DTYPES = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")
_FLOATS = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}

Sides = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(max_length=32)]
ChunkSides = Annotated[tuple[Annotated[int, Field(ge=1, lt=2**63)], ...], Field(max_length=32)]
Attributes = Mapping[str, JsonValue]
M = TypeVar("M", bound=BaseModel)


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _V2(_Said):
    zarr_format: Literal[2]
    shape: Sides
    chunks: ChunkSides
    dtype: JsonValue
    fill_value: JsonValue = None
    order: Literal["C", "F"] = "C"
    compressor: dict[str, JsonValue] | None = None
    filters: list[dict[str, JsonValue]] | None = None
    dimension_separator: Literal[".", "/"] = "."


class _ChunkShape(_Said):
    chunk_shape: ChunkSides


class _Grid(_Said):
    name: Literal["regular"]
    configuration: _ChunkShape


class _Separator(_Said):
    separator: Literal[".", "/"] | None = None


class _Keys(_Said):
    name: Literal["default", "v2"] = "default"
    configuration: _Separator = _Separator()


class _V3(_Said):
    model_config = ConfigDict(frozen=True, extra="allow")

    zarr_format: Literal[3]
    node_type: Literal["array"]
    shape: Sides
    data_type: JsonValue
    chunk_grid: _Grid
    chunk_key_encoding: _Keys = _Keys()
    fill_value: JsonValue
    codecs: Annotated[
        list[Annotated[Codec, BeforeValidator(as_codec)]], Field(min_length=1, max_length=16)
    ]
    dimension_names: list[str | None] | None = None
    storage_transformers: list[JsonValue] = Field([], max_length=0)
    attributes: dict[str, JsonValue] = {}


@dataclass(frozen=True)
class ArrayLayout:
    """The layout of an array: its values, and in which files its chunks lie.

    ``names`` are those of its axes, where the file gives them. ``packing.shape`` and ``chunk`` are
    equal but for the order of axes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: tuple[int, ...]
    packing: Packing
    fill: np.generic
    key_prefix: str
    key_separator: str
    shards: Shards | None = None
    names: tuple[str | None, ...] | None = None

    @property
    def file_shape(self) -> tuple[int, ...]:
        """The shape of the values of one file: a shard's, or a chunk's."""
        return self.shards.shape if self.shards else self.chunk

    def key(self, at: tuple[int, ...]) -> str:
        """Return the key of the file with these numbers along the axes."""
        numbers = self.key_separator.join(map(str, at))
        return f"{self.key_prefix}{self.key_separator}{numbers}" if self.key_prefix else numbers


@dataclass(frozen=True)
class Node:
    """An array or a group: ``array`` is None for a group. ``attributes`` are its owner's."""

    array: ArrayLayout | None
    attributes: Attributes


def read_node(place: Place) -> Node | None:
    """Read the metadata of an array or a group; None if there are none at this place.

    Raises:
        ImageError: they are wrong, or need what is not read.
    """
    denied: DeniedError | None = None
    for name, read in (("zarr.json", _node_v3), (".zarray", _array_v2), (".zgroup", _group_v2)):
        try:
            data = place.read(name, METADATA_BYTES)
        except DeniedError as error:  # some servers answer so for a file that does not exist
            denied = error
            continue
        if data is not None:
            return read(place, _parsed(data, name))
    attributes = None if denied else _attributes_v2(place)
    if attributes:  # many programs leave out .zgroup
        return Node(None, attributes)
    if denied:
        raise denied
    return None


def _node_v3(_: Place, said: Attributes) -> Node:
    if said.get("zarr_format") == 3 and said.get("node_type") == "group":
        attributes = said.get("attributes")
        return Node(None, attributes if isinstance(attributes, dict) else {})
    read = _checked(_V3, said)
    for name, value in (read.model_extra or {}).items():
        if not (isinstance(value, dict) and value.get("must_understand") is False):
            raise ImageError(f"uses a Zarr extension that is not read: {name}")
    name = str(read.data_type)
    if not isinstance(read.data_type, str) or not _V3_DTYPES.fullmatch(name):
        raise ImageError(f"has the dtype {name[:50]}: save it as numbers")
    dtype, file_shape = np.dtype(name), read.chunk_grid.configuration.chunk_shape
    _check_sides(read.shape, file_shape)
    shards = shards_of(read.codecs, file_shape)
    chunk = shards.chunk if shards else file_shape
    codecs = shards.codecs if shards else read.codecs
    keys = read.chunk_key_encoding
    v2 = keys.name == "v2"
    names = read.dimension_names
    layout = ArrayLayout(
        read.shape,
        dtype,
        chunk,
        packing_v3(codecs, chunk, dtype),
        _fill(read.fill_value, dtype),
        "" if v2 else "c",
        keys.configuration.separator or ("." if v2 else "/"),
        shards,
        None if names is None or len(names) != len(read.shape) else tuple(names),
    )
    return Node(layout, read.attributes)


def _array_v2(place: Place, said: Attributes) -> Node:
    read = _checked(_V2, said)
    name = str(read.dtype)
    if not isinstance(read.dtype, str) or not _V2_DTYPE.fullmatch(name):
        raise ImageError(f"has the dtype {name[:50]}: save it as numbers")
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise ImageError(f"has the dtype {name}, which does not exist") from error
    _check_sides(read.shape, read.chunks)
    attributes = _attributes_v2(place)
    names = attributes.get("_ARRAY_DIMENSIONS")  # as xarray writes it
    known = isinstance(names, list) and len(names) == len(read.shape)
    layout = ArrayLayout(
        read.shape,
        dtype,
        read.chunks,
        packing_v2(read.filters or [], read.compressor, read.chunks, (dtype, read.order)),
        _fill(read.fill_value, dtype),
        "",
        read.dimension_separator,
        names=tuple(map(str, names)) if known and isinstance(names, list) else None,
    )
    return Node(layout, attributes)


def _group_v2(place: Place, _: Attributes) -> Node:
    return Node(None, _attributes_v2(place))


def _attributes_v2(place: Place) -> Attributes:
    try:
        data = place.read(".zattrs", METADATA_BYTES)
    except DeniedError:
        return {}
    return {} if data is None else _parsed(data, ".zattrs")


def _parsed(data: bytes, name: str) -> Attributes:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"is damaged: its {name} is not readable: {error}") from error
    if not isinstance(said, dict):
        raise ImageError(f"is damaged: its {name} is no JSON object")
    return said


def _checked(model: type[M], said: Attributes) -> M:
    try:
        return model.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ImageError(f"has wrong Zarr metadata: {where}: {first['msg']}") from error


def _check_sides(shape: tuple[int, ...], chunk: tuple[int, ...]) -> None:
    if len(shape) != len(chunk):
        raise ImageError(
            f"has wrong Zarr metadata: {len(shape)} axes and chunks of {len(chunk)} axes"
        )


def _fill(value: JsonValue, dtype: np.dtype[Any]) -> np.generic:
    """Return the value of chunks that are not stored."""
    if isinstance(value, str):
        if value.startswith("0x"):
            data = bytes.fromhex(value[2:].zfill(2 * dtype.itemsize))
            if len(data) == dtype.itemsize:
                return np.frombuffer(data, dtype.newbyteorder(">"))[0].astype(dtype)  # type: ignore[no-any-return]
        value = _FLOATS.get(value, value)
    try:
        filled = np.zeros(1, dtype)
        filled[:] = 0 if value is None else value
    except (ValueError, TypeError, OverflowError) as error:
        raise ImageError(f"has the fill value {value!r}, which is no {dtype.name}") from error
    return filled[0]  # type: ignore[no-any-return]
