"""Read Zarr arrays, of version 2 or 3, in a folder or a zip file."""

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numcodecs
import numpy as np
import zarr
import zarr.errors
import zarr.storage
from zarr.codecs import BytesCodec, TransposeCodec
from zarr.core.buffer import Buffer, default_buffer_prototype

from models.data.readers.limits import (
    SLACK,
    Array,
    ImageError,
    check_chunk,
    check_size,
    inflated_bytes,
    native,
)
from models.data.readers.stack import Ask, Stack

_MAX_CHUNKS = 1 << 16  # of one section: each costs a look-up, whether it is stored or not
_METADATA_BYTES = 1 << 22
_CODECS: dict[str, Any] = {
    "zlib": None,  # numcodecs would unpack it whole
    "gzip": numcodecs.GZip(),
    "zstd": numcodecs.Zstd(),
    "blosc": numcodecs.Blosc(),
    "lz4": numcodecs.LZ4(),
}


@contextmanager
def open_zarr_folder(folder: Path, ask: Ask) -> Iterator[Stack]:
    """Open a folder that is a Zarr array (H, W) or (N, H, W)."""
    yield _stack(_Members(lambda key: (folder / key).open("rb")), ask)


@contextmanager
def open_zarr_zip(stream: BinaryIO, ask: Ask) -> Iterator[Stack]:
    """Open a zipped Zarr array."""
    # Read in place: nothing is extracted, so no member can be written outside a folder.
    with tempfile.NamedTemporaryFile(suffix=".zip") as copy:
        while chunk := stream.read(1 << 20):
            copy.write(chunk)
        copy.flush()
        with zipfile.ZipFile(copy.name) as archive:
            yield _stack(_Members(lambda key: _member(archive, key)), ask)


def _member(archive: zipfile.ZipFile, key: str) -> BinaryIO:
    info = archive.getinfo(key)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ImageError("is a zip file that is not packed by deflate: pack it again")
    return archive.open(info)  # type: ignore[return-value]


class _Members(dict[str, Buffer]):
    """The members of a Zarr store, read on demand and never beyond the size allowed."""

    def __init__(self, open_member: Callable[[str], BinaryIO]) -> None:
        super().__init__()
        self._open = open_member
        self._codec = ""
        self._chunk_bytes = 0

    def expect(self, codec: str, chunk_bytes: int) -> None:
        """Expect chunks from now on: of so many bytes, packed by ``codec`` unless it is empty."""
        self._codec, self._chunk_bytes = codec, chunk_bytes

    def __getitem__(self, key: str) -> Buffer:
        limit = _METADATA_BYTES
        if self._chunk_bytes:
            limit = self._chunk_bytes + self._chunk_bytes // 8 + SLACK
        try:
            with self._open(key) as stream:
                data = stream.read(limit + 1)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise KeyError(key) from error
        if len(data) > limit:
            raise ImageError(f"has a member {key} of more than {limit} bytes")
        if self._codec:
            self._check_packed(data)
        return default_buffer_prototype().buffer.from_bytes(data)

    def __contains__(self, key: object) -> bool:
        try:
            self[str(key)]
        except KeyError:
            return False
        return True

    def _check_packed(self, data: bytes) -> None:
        codec = _CODECS[self._codec]
        if codec is None:
            if inflated_bytes(data, self._chunk_bytes) > self._chunk_bytes:
                raise ImageError("has chunks that unpack into more pixels than they declare")
            return
        try:
            codec.decode(data, out=np.empty(self._chunk_bytes, np.uint8))
        except (ValueError, RuntimeError) as error:
            raise ImageError(
                f"has chunks that are damaged, or unpack into more pixels than declared: {error}"
            ) from error


def _stack(members: _Members, ask: Ask) -> Stack:
    try:
        array = zarr.open_array(zarr.storage.MemoryStore(members, read_only=True), mode="r")
    except (FileNotFoundError, zarr.errors.BaseZarrError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError("is not a Zarr array (its root must be one array, not a group)") from error
    if array.ndim not in (2, 3):
        raise ImageError(f"is a Zarr array of shape {array.shape}: save it as (H, W) or (N, H, W)")
    check_size((array.shape[-2], array.shape[-1]), ask.max_pixels)
    check_chunk(array.chunks, ask.max_pixels)
    rows, cols = (-(-array.shape[axis] // array.chunks[axis]) for axis in (-2, -1))
    if rows * cols > _MAX_CHUNKS:
        raise ImageError(f"has {rows * cols} chunks to a section: make them larger")
    members.expect(_packed_by(array), prod(array.chunks) * array.dtype.itemsize)
    return Stack(_sections(array), 1 if array.ndim == 2 else array.shape[0])


def _sections(array: zarr.Array[Any]) -> Iterator[Array]:
    if array.ndim == 2:
        yield native(np.asarray(array[:]))
        return
    for index in range(array.shape[0]):
        yield native(np.asarray(array[index]))


def _packed_by(array: zarr.Array[Any]) -> str:
    """Return the compressor's name, empty for none; refuse one whose output has no bound."""
    if array.dtype.kind not in "buifc":
        raise ImageError(f"has the dtype {array.dtype}: save it as numbers")
    codecs = [c for c in array.filters if not isinstance(c, TransposeCodec)]
    if codecs or array.shards or not isinstance(array.serializer, BytesCodec | None):
        raise ImageError("has Zarr filters or shards: save it without them")
    compressors: tuple[Any, ...] = array.compressors
    names = [getattr(c, "codec_id", None) or c.to_dict()["name"] for c in compressors]
    if len(names) > 1 or not set(names) <= _CODECS.keys():
        listed = ", ".join(map(str, names))
        known = ", ".join(_CODECS)
        raise ImageError(f"is compressed by {listed}: save it with one of {known}, or with none")
    return str(names[0]) if names else ""
