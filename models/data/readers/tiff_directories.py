"""Walk the directories of a TIFF, and bound what reading them costs.

A directory (IFD) describes one page. Its values may lie anywhere in the file, so a small file could
name the same megabytes in every one of a thousand directories.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from models.data.readers.limits import SLACK, ImageError

MAX_PAGES = 1_000_000

_REDUCED, _TRANSPARENCY = 0b1, 0b100
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TYPE_BYTES |= {16: 8, 17: 8, 18: 8}  # of BigTIFF
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
# They keep stacks in forms of their own, of which the pages tell a part.
_FOREIGN = {33629: "MetaMorph", 34361: "FluoView", 34412: "LSM"}
_SUBFILE, _OLD_SUBFILE, _WIDTH, _LENGTH = 254, 255, 256, 257


@dataclass(frozen=True)
class Directory:
    """A page: where its directory lies, its size (H, W), and whether it is a copy of another."""

    offset: int
    shape: tuple[int, int]
    is_copy: bool


@dataclass(frozen=True)
class _Form:
    """The widths of the fields of a classic TIFF, or of a BigTIFF."""

    order: str
    count: str
    entry: str
    offset: str

    def unpack(self, field: str, data: bytes) -> int:
        value: int = struct.unpack(self.order + field, data)[0]
        return value


def directories(stream: BinaryIO, num_bytes: int) -> list[Directory]:
    """Return the main directories of a TIFF of ``num_bytes`` bytes, in order.

    Raises:
        ImageError: the file is cut off or damaged, or its directories name more bytes than twice
            those that it has.
    """
    form, offset = _start(stream)
    found: list[Directory] = []
    seen: set[int] = set()
    budget = 2 * num_bytes + SLACK
    while offset:
        if offset in seen or len(seen) >= MAX_PAGES:
            raise ImageError("is damaged: its list of pages does not end")
        seen.add(offset)
        entries, offset_after = _table(stream, form, offset)
        budget -= len(entries) + sum(_outside(form, entries))
        if budget < 0:
            raise ImageError("is damaged: its pages name the same bytes again and again")
        found.append(_directory(form, offset, entries))
        offset = offset_after
    if not found:
        raise ImageError("holds no page")
    return found


def _start(stream: BinaryIO) -> tuple[_Form, int]:
    stream.seek(0)
    start = stream.read(16).ljust(16, b"\0")
    order = "<" if start.startswith(b"II") else ">"
    if start[2:4] in (b"+\0", b"\0+"):
        form = _Form(order, "Q", "HHQ8s", "Q")
        return form, form.unpack("Q", start[8:16])
    form = _Form(order, "H", "HHI4s", "I")
    return form, form.unpack("I", start[4:8])


def _table(stream: BinaryIO, form: _Form, offset: int) -> tuple[bytes, int]:
    """Return the entries of a directory as bytes, and the place of the next directory."""
    stream.seek(offset)
    count_bytes, offset_bytes = struct.calcsize(form.count), struct.calcsize(form.offset)
    count = stream.read(count_bytes)
    if len(count) < count_bytes:
        raise ImageError("is cut off: one of its pages lies behind its end")
    size = form.unpack(form.count, count) * struct.calcsize(form.order + form.entry)
    if size > 4096 * 20:
        raise ImageError("is damaged: a page has more than 4096 facts")
    table = stream.read(size + offset_bytes)
    if len(table) < size:
        raise ImageError("is cut off: one of its pages ends behind its end")
    after = table[size:]  # some writers leave out the last zero
    return table[:size], form.unpack(form.offset, after) if len(after) == offset_bytes else 0


def _outside(form: _Form, entries: bytes) -> Iterator[int]:
    """Yield the bytes of each value that does not lie in the directory itself."""
    inside = struct.calcsize(form.offset)
    for _, kind, count, _ in struct.iter_unpack(form.order + form.entry, entries):
        num_bytes = count * _TYPE_BYTES.get(kind, 0)
        if num_bytes > inside:
            yield num_bytes


def _directory(form: _Form, offset: int, entries: bytes) -> Directory:
    facts: dict[int, int] = {}
    for code, kind, count, value in struct.iter_unpack(form.order + form.entry, entries):
        if code in _FOREIGN:
            raise ImageError(f"is a {_FOREIGN[code]} stack: open it in Fiji and save it as TIFF")
        if code in (_SUBFILE, _OLD_SUBFILE, _WIDTH, _LENGTH) and kind in _INTEGERS and count == 1:
            field = _INTEGERS[kind]
            facts[code] = form.unpack(field, value[: struct.calcsize(field)])
    subfile = facts.get(_SUBFILE, 0)
    is_copy = bool(subfile & (_REDUCED | _TRANSPARENCY)) or facts.get(_OLD_SUBFILE) == 2
    return Directory(offset, (facts.get(_LENGTH, 0), facts.get(_WIDTH, 0)), is_copy)
