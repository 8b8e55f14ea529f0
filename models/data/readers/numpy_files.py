"""Read NumPy's files: one array (NPY), or a zip of arrays (NPZ). Nothing is unpickled."""

import ast
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np

from models.data.readers.choice import the_array
from models.data.readers.limits import ImageError
from models.data.readers.raw import RawArray, sections_of
from models.data.readers.stack import Ask, Stack
from models.data.readers.volume import stack_of

_UNKNOWN = (None, None, None)
_MAX_MEMBERS = 10_000


@contextmanager
def open_npy(stream: BinaryIO, ask: Ask) -> Iterator[Stack]:
    """Open an array (H, W) or (N, H, W)."""
    num_bytes = stream.seek(0, 2)
    stream.seek(0)
    yield _stack(stream, num_bytes, ask)


@contextmanager
def open_npz(stream: BinaryIO, ask: Ask) -> Iterator[Stack]:
    """Open one of the arrays of an NPZ: the only one, or the one that ``path`` names."""
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise ImageError(f"holds {len(members)} arrays: at most {_MAX_MEMBERS} are read")
        by_name = {each.filename.removesuffix(".npy"): each for each in members}
        member = by_name[the_array(list(by_name), ask)]
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ImageError("is not packed by deflate: save it by numpy.savez_compressed")
        with archive.open(member) as array:
            yield _stack(cast(BinaryIO, array), member.file_size, ask)


def _stack(stream: BinaryIO, num_bytes: int, ask: Ask) -> Stack:
    header = _header(stream)
    depth, height, width = sections_of(header.shape)
    array = RawArray(stream, stream.tell(), (depth, height, width), header.dtype)
    if header.by_columns:  # as MATLAB and Fortran store: the first axis is the fastest
        array = RawArray(stream, stream.tell(), (width, height, depth), header.dtype, "xyz")
    return stack_of(array.volume(num_bytes, ask, _UNKNOWN), ask)


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype[Any]


def _header(stream: BinaryIO) -> _Header:
    """Read the header of an array; the stream stands where its pixels begin."""
    start = stream.read(10)
    if start[:8] != b"\x93NUMPY\x01\0":
        # Later versions are for records, and the length of their headers has no bound.
        raise ImageError("is a NumPy file of records: save one array of numbers")
    text = stream.read(int.from_bytes(start[8:10], "little"))
    try:
        said = ast.literal_eval(text.decode("latin-1"))
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ImageError(f"is damaged: its header is not that of an array: {error}") from error
    if not isinstance(said, dict) or said.keys() != {"descr", "fortran_order", "shape"}:
        raise ImageError("is damaged: its header is not that of an array")
    shape, descr = said["shape"], said["descr"]
    if not isinstance(shape, tuple) or not all(isinstance(length, int) for length in shape):
        raise ImageError("is damaged: its header has no shape")
    if not isinstance(descr, str) or not re.fullmatch("[<>|=]?[biufc?][0-9]*", descr):
        raise ImageError(f"has the dtype {str(descr)[:40]}: save its grey values as numbers")
    return _Header(shape, bool(said["fortran_order"]), np.dtype(descr))
