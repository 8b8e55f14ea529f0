"""Read MRC files, of the 2014 standard and of IMOD.

The header has 1024 bytes. It is read here, because no library leaves the pixels in the file where
the file is a stream that was sent.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from models.data.readers.limits import ImageError
from models.data.readers.pixel_size import pixel_nm
from models.data.readers.raw import RawArray
from models.data.readers.stack import Ask, Stack
from models.data.readers.volume import VoxelSize, stack_of

HEADER_BYTES = 1024

_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_NOT_READ = {3: "complex", 4: "complex", 16: "colours", 101: "4 bits a pixel"}
_FIRST_STACK_OF_VOLUMES = 401  # a space group
_IMOD_STAMP, _IMOD_SIGNED_BYTES = 1146047817, 1
_BYTES_AS_WRITTEN_AFTER_2014 = 20140
_UPSIDE_DOWN = (
    "is read with its first row at the top, and some programs, such as IMOD and Fiji, show it at "
    "the bottom: if its masks are in another format, check that they are not upside down"
)


@dataclass(frozen=True)
class _Header:
    """The numbers of the header, by their names in the standard."""

    order: str
    data: bytes

    def number(self, word: int) -> int:
        """Return a whole number; the standard counts words of 4 bytes from 1."""
        value: int = struct.unpack_from(self.order + "i", self.data, 4 * (word - 1))[0]
        return value

    def real(self, word: int) -> float:
        value: float = struct.unpack_from(self.order + "f", self.data, 4 * (word - 1))[0]
        return value


@contextmanager
def open_mrc(stream: BinaryIO, ask: Ask) -> Iterator[Stack]:
    """Open the sections of an MRC file, its axes in the order that its header names."""
    num_bytes = stream.seek(0, 2)
    stream.seek(0)
    header = _header(stream.read(HEADER_BYTES))
    extended = header.number(24)
    if header.number(23) >= _FIRST_STACK_OF_VOLUMES:
        raise ImageError("holds several volumes: save one of them")
    columns, rows, sections = (header.number(word) for word in (1, 2, 3))
    dtype, notes = _dtype(header)
    array = RawArray(
        stream,
        HEADER_BYTES + max(0, extended),
        (sections, rows, columns),
        np.dtype(header.order + dtype),
        _stored(header),
    )
    if ask.purpose == "image":
        notes += (_UPSIDE_DOWN,)
    yield stack_of(array.volume(num_bytes, ask, _voxel_nm(header), notes), ask)


def _header(data: bytes) -> _Header:
    if len(data) < HEADER_BYTES:
        raise ImageError("is cut off: it is shorter than the header of an MRC file")
    stamp = data[212]
    if stamp in (0x44, 0x11):
        return _Header("<" if stamp == 0x44 else ">", data)
    # Old files have no stamp; no mode is larger than the bytes of a short number.
    little = _Header("<", data)
    return little if 0 <= little.number(4) < 1 << 16 else _Header(">", data)


def _dtype(header: _Header) -> tuple[str, tuple[str, ...]]:
    """Return the pixels' dtype, and a note where a byte may have been meant otherwise."""
    mode = header.number(4)
    if mode not in _DTYPES:
        kind = _NOT_READ.get(mode, "not known")
        raise ImageError(f"has the mode {mode} ({kind}); the modes 0, 1, 2, 6 and 12 are read")
    if mode == 1 and header.real(21) > np.iinfo(np.int16).max:
        return "u2", ()  # EMAN2 writes the mode with a sign for pixels without one
    if mode != 0:
        return _DTYPES[mode], ()
    if header.number(39) == _IMOD_STAMP:
        return ("i1" if header.number(40) & _IMOD_SIGNED_BYTES else "u1"), ()
    if header.real(21) > 127:  # the largest grey value
        return "u1", ()
    if header.real(20) < 0 or header.number(28) >= _BYTES_AS_WRITTEN_AFTER_2014:
        return "i1", ()
    return "i1", (
        "does not say whether its bytes have a sign; they are read as -128 to 127, as the standard "
        "of 2014 has it: if the contrast looks wrong, save it with mode 1 or 6",
    )


def _stored(header: _Header) -> str:
    """Return the axes from the slowest to the fastest: of sections, rows and columns."""
    axes = [header.number(word) for word in (19, 18, 17)]
    if axes == [0, 0, 0]:  # old programs left them out
        return "zyx"
    if sorted(axes) != [1, 2, 3]:
        raise ImageError(f"is damaged: its header names the axes {axes}")
    return "".join("xyz"[axis - 1] for axis in axes)


def _voxel_nm(header: _Header) -> VoxelSize:
    """Return the size of a voxel (z, y, x) in nanometres; the header has it in Angstrom."""
    sizes: list[float] = []
    for length, count in ((13, 10), (12, 9), (11, 8)):
        sizes.append(header.real(length) / max(1, header.number(count)))
    if sizes == [1.0, 1.0, 1.0]:  # what programs write that know no size
        return (None, None, None)
    return pixel_nm(sizes[0], "A"), pixel_nm(sizes[1], "A"), pixel_nm(sizes[2], "A")
