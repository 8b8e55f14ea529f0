"""Zarr's lists of codecs and filters as one Packing, or a refusal in words."""

from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from models.data.readers.limits import ImageError
from models.data.readers.zarr_codecs import (
    COMPRESSORS,
    Delta,
    Filter,
    FixedScaleOffset,
    Packing,
    Transposed,
)

_INDEX_ENTRY_BYTES = 16
_MAX_CHUNKS_OF_A_SHARD = 1 << 20
M = TypeVar("M", bound=BaseModel)


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Codec(_Said):
    """A codec of Zarr 3: its name, and its settings."""

    name: str
    configuration: dict[str, JsonValue] = {}

    @property
    def id(self) -> str:
        """The codec's name without the prefix of those that Zarr 2 had."""
        return self.name.removeprefix("numcodecs.")


def as_codec(said: object) -> object:
    """Return a codec that is given by its name alone as an object."""
    return {"name": said} if isinstance(said, str) else said


class _ShardSettings(_Said):
    chunk_shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=32)]
    codecs: list[Annotated[Codec, BeforeValidator(as_codec)]] = Field(max_length=16)
    index_codecs: list[Annotated[Codec, BeforeValidator(as_codec)]] = Field(max_length=4)
    index_location: Literal["start", "end"] = "end"


class _DeltaSettings(_Said):
    dtype: str
    astype: str | None = None


class _ScaleSettings(_Said):
    dtype: str
    astype: str | None = None
    offset: Annotated[float, Field(allow_inf_nan=False)]
    scale: Annotated[float, Field(allow_inf_nan=False)]


class _ShuffleSettings(_Said):
    elementsize: Annotated[int, Field(ge=1, le=16)] = 4


class _TransposeSettings(_Said):
    order: Annotated[tuple[int, ...], Field(max_length=32)]


class _BytesSettings(_Said):
    endian: Literal["little", "big"] | None = None


@dataclass(frozen=True)
class Shards:
    """The files of a sharded array: each holds the chunks of a box, and an index of them.

    An entry of the index tells where a chunk begins and how many bytes it has.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    codecs: list[Codec]
    index: Packing
    index_first: bool

    @property
    def grid(self) -> tuple[int, ...]:
        """The number of chunks along each axis of a shard."""
        return tuple(a // b for a, b in zip(self.shape, self.chunk, strict=True))


def shards_of(codecs: list[Codec], shape: tuple[int, ...]) -> Shards | None:
    """Return the shards of an array of Zarr 3; None if it has none."""
    if not any(codec.id == "sharding_indexed" for codec in codecs):
        return None
    if len(codecs) != 1:
        raise ImageError("has shards that are packed as a whole: save it with chunks packed alone")
    said = _settings(_ShardSettings, codecs[0])
    if any(codec.id == "sharding_indexed" for codec in (*said.codecs, *said.index_codecs)):
        raise ImageError("has shards in shards: save it with one kind of shards")
    chunk = said.chunk_shape
    if len(chunk) != len(shape) or any(a % b for a, b in zip(shape, chunk, strict=True)):
        raise ImageError("has wrong Zarr metadata: its chunks do not divide its shards")
    grid = tuple(a // b for a, b in zip(shape, chunk, strict=True))
    if prod(grid) > _MAX_CHUNKS_OF_A_SHARD:
        raise ImageError(f"has {prod(grid)} chunks to a shard: write it with larger chunks")
    index = packing_v3(said.index_codecs, (*grid, 2), np.dtype(np.uint64))
    if index.compressor or index.filters or index.shuffled_bytes:
        raise ImageError("has an index of its shards that is packed: save it unpacked")
    return Shards(shape, chunk, said.codecs, index, said.index_location == "start")


def packing_v3(codecs: list[Codec], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Packing:
    """Return the packing of chunks by the codecs of Zarr 3, in the order in which they packed."""
    filters: list[Filter] = []
    rest = list(codecs)
    while rest and rest[0].id != "bytes":
        codec = rest.pop(0)
        if codec.id == "transpose":
            order = _settings(_TransposeSettings, codec).order
            if sorted(order) != list(range(len(shape))):
                raise ImageError(f"has wrong Zarr metadata: it transposes by {order}")
            filters.append(Transposed(order))
            shape = tuple(shape[axis] for axis in order)
        else:
            undone, dtype = _value_filter(codec)
            filters.append(undone)
    if not rest:
        raise _not_read(codecs[-1].name if codecs else "nothing")
    endian = _settings(_BytesSettings, rest.pop(0)).endian
    return _packing(shape, dtype.newbyteorder(endian or "little"), filters, rest)


def packing_v2(
    filters: list[dict[str, JsonValue]],
    compressor: dict[str, JsonValue] | None,
    shape: tuple[int, ...],
    values: tuple[np.dtype[Any], str],
) -> Packing:
    """Return the packing of chunks of Zarr 2; ``values`` are their dtype and order, C or F."""
    dtype, order = values
    undone: list[Filter] = []
    if order == "F":
        undone.append(Transposed(tuple(range(len(shape)))[::-1]))
        shape = shape[::-1]
    rest = [Codec(name=str(each.get("id")), configuration=each) for each in filters]
    while rest and rest[0].id in ("delta", "fixedscaleoffset"):
        each, dtype = _value_filter(rest.pop(0))
        undone.append(each)
    if compressor is not None:
        rest.append(Codec(name=str(compressor.get("id")), configuration=compressor))
    return _packing(shape, dtype, undone, rest)


def _packing(
    shape: tuple[int, ...], dtype: np.dtype[Any], filters: list[Filter], packers: list[Codec]
) -> Packing:
    shuffled_bytes = 0
    rest = list(packers)
    if rest and rest[0].id == "shuffle":
        shuffled_bytes = _settings(_ShuffleSettings, rest.pop(0)).elementsize
    inside = _leading_checksums(rest)
    compressor = ""
    if rest and rest[0].id in COMPRESSORS:
        compressor = rest.pop(0).id
    outside = _leading_checksums(rest)
    if rest and rest[0].id in COMPRESSORS:
        raise ImageError("is compressed twice: save it with one compressor")
    if rest:
        raise _not_read(rest[0].name)
    return Packing(shape, dtype, tuple(filters), shuffled_bytes, inside, compressor, outside)


def _leading_checksums(codecs: list[Codec]) -> int:
    number = 0
    while codecs and codecs[0].id == "crc32c":
        codecs.pop(0)
        number += 1
    return number


def _value_filter(codec: Codec) -> tuple[Filter, np.dtype[Any]]:
    """Return the filter, and the dtype of the values that it made."""
    if codec.id == "delta":
        said = _settings(_DeltaSettings, codec)
        return Delta(_number(said.dtype)), _number(said.astype or said.dtype)
    if codec.id == "fixedscaleoffset":
        scaled = _settings(_ScaleSettings, codec)
        if scaled.scale == 0:
            raise ImageError("has wrong Zarr metadata: its values are scaled by 0")
        undone = FixedScaleOffset(scaled.offset, scaled.scale, _number(scaled.dtype))
        return undone, _number(scaled.astype or scaled.dtype)
    raise _not_read(codec.name)


def _number(name: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ImageError(f"has the dtype {name[:50]}, which does not exist") from error
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise ImageError(f"has the dtype {dtype.name}: save it as numbers")
    return dtype


def _settings(model: type[M], codec: Codec) -> M:
    try:
        return model.model_validate(codec.configuration)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, ("codecs", codec.name, *first["loc"])))
        raise ImageError(f"has wrong Zarr metadata: {where}: {first['msg']}") from error


def _not_read(name: str) -> ImageError:
    known = ", ".join(COMPRESSORS)
    return ImageError(
        f"is packed by {name[:50]}, which is not read: save it with one of {known}, or with none"
    )
