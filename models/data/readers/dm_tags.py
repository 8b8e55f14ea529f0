"""Walk the tags of Gatan's DM3 and DM4 files, without reading the arrays in them.

A file is a tree of tags. The numbers that describe the tree are big-endian, with 4 bytes in DM3 and
8 in DM4; values have the byte order that the header names.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from models.data.readers.limits import ImageError

_MAX_TAGS = 500_000
_MAX_DEPTH = 32
_MAX_TEXT = 100
_GROUP, _VALUE = 20, 21
_STRUCT, _STRING, _ARRAY = 15, 18, 20
_FORMS = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "B", 9: "b", 10: "B", 11: "q", 12: "Q"}
_CHARACTERS = 4  # texts are arrays of these, but so are grey values
_TEXTS = {"Units"}


@dataclass(frozen=True)
class Block:
    """The place of an array in the file: where its bytes begin, and how many there are."""

    offset: int
    num_bytes: int


Value = float | str | Block
Tags = dict[tuple[str, ...], Value]
"""Values by their paths; tags without a name are counted from 0."""


def read_tags(stream: BinaryIO, num_bytes: int) -> tuple[Tags, str]:
    """Return all tags of a DM3 or DM4 file, and the byte order of its arrays, ``<`` or ``>``.

    Raises:
        ImageError: the file is damaged, or its tree is too large or too deep.
    """
    stream.seek(0)
    start = stream.read(16)
    wide = start[3:4] == b"\x04"
    little = start[12:16] if wide else start[8:12]
    stream.seek(16 if wide else 12)
    walk = _Walk(stream, num_bytes, "Q" if wide else "I", "<" if little[-1:] == b"\x01" else ">")
    return dict(walk.group((), _MAX_DEPTH)), walk.order


class _Walk:
    """A walk through the tree, from its beginning to its end: it never goes back."""

    def __init__(self, stream: BinaryIO, num_bytes: int, length: str, order: str) -> None:
        self.order = order
        self._stream = stream
        self._num_bytes = num_bytes
        self._length = length
        self._num_tags = 0

    def group(self, path: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], Value]]:
        """Yield the values of a group of tags, and of the groups in it."""
        if not depth:
            raise ImageError(f"is damaged: its tags lie more than {_MAX_DEPTH} deep")
        self._read(2)  # sorted, open
        unnamed = 0
        for _ in range(self._number()):
            self._num_tags += 1
            if self._num_tags > _MAX_TAGS:
                raise ImageError(f"has more than {_MAX_TAGS} tags")
            kind, label_bytes = struct.unpack(">BH", self._read(3))
            label = self._read(label_bytes).decode("latin-1")
            if not label:
                label, unnamed = str(unnamed), unnamed + 1
            if self._length == "Q":
                self._number()  # the bytes that the tag takes
            if kind == _GROUP:
                yield from self.group((*path, label), depth - 1)
            elif kind == _VALUE:
                yield (*path, label), self._value(is_text=label in _TEXTS)
            else:
                raise ImageError(f"is damaged: it has a tag of the kind {kind}")

    def _value(self, *, is_text: bool) -> Value:
        if self._read(4) != b"%%%%":
            raise ImageError("is damaged: a tag lacks its mark")
        count = self._number()
        if not 1 <= count <= 1000:
            raise ImageError("is damaged: a tag has no form")
        form = [self._number() for _ in range(count)]
        if form[0] in _FORMS:
            field = self.order + _FORMS[form[0]]
            number: float = struct.unpack(field, self._read(struct.calcsize(field)))[0]
            return number
        if is_text and form[:2] == [_ARRAY, _CHARACTERS] and form[-1] <= _MAX_TEXT:
            text = self._read(2 * form[-1])
            return text.decode("utf-16-le" if self.order == "<" else "utf-16-be")
        return self._skip(_num_bytes(form))

    def _number(self) -> int:
        number: int = struct.unpack(
            ">" + self._length, self._read(struct.calcsize("=" + self._length))
        )[0]
        return number

    def _skip(self, num_bytes: int) -> Block:
        place = self._stream.tell()
        if place + num_bytes > self._num_bytes:
            raise ImageError("is cut off: one of its arrays lies behind its end")
        self._stream.seek(place + num_bytes)
        return Block(place, num_bytes)

    def _read(self, num_bytes: int) -> bytes:
        data = self._stream.read(num_bytes)
        if len(data) < num_bytes:
            raise ImageError("is cut off: its tags lie behind its end")
        return data


def _num_bytes(form: list[int]) -> int:
    """Return the bytes of a value by its form: a simple kind, or a structure, text or array."""
    if form[:1] == [_STRUCT]:
        return sum(_num_bytes([kind]) for kind in form[4::2])
    if form[:1] == [_STRING]:
        return form[-1]
    if form[:1] == [_ARRAY] and len(form) > 2:
        return _num_bytes(form[1:-1]) * form[-1]
    if len(form) != 1 or form[0] not in _FORMS:
        raise ImageError(f"is damaged: a tag has the form {form[:5]}")
    return struct.calcsize("=" + _FORMS[form[0]])
