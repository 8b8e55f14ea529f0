"""A zip file as a place."""

import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import IO, BinaryIO

from models.data.readers.places import (
    MAX_DEPTH,
    Listing,
    PlaceError,
    check_bytes,
    joined,
    spooled,
)

_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_COPIED_BYTES = 1 << 20


class ZipPlace:
    """A folder in a zip file. It is read where it lies: nothing is unpacked to a disk.

    What macOS adds to zip files (``__MACOSX``) is passed over.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._archive = zipfile.ZipFile(stream)
        self._lock = Lock()  # the stream has one position
        self._members = {
            info.filename: info
            for info in self._archive.infolist()
            if not info.is_dir() and not info.filename.startswith("__MACOSX/")
        }
        self._listings = _listings(self._members)
        self._prefix = ""

    @property
    def name(self) -> str:
        return self._prefix.rstrip("/").rpartition("/")[2]

    def at(self, key: str) -> "ZipPlace":
        place = object.__new__(ZipPlace)
        place.__dict__ = self.__dict__ | {"_prefix": self._prefix + joined(key) + "/"}
        return place if joined(key) else self

    def open(self, key: str) -> BinaryIO | None:
        info = self._member(key)
        if info is None:
            return None
        with self._lock, self._archive.open(info) as stream:
            return spooled(_by_parts(stream, info.file_size))

    def read(self, key: str, limit: int) -> bytes | None:
        info = self._member(key)
        if info is None:
            return None
        check_bytes(key, info.file_size, limit)
        with self._lock, self._archive.open(info) as stream:
            return stream.read(limit)

    def read_part(self, key: str, start: int, length: int) -> bytes | None:
        info = self._member(key)
        if info is None:
            return None
        with self._lock, self._archive.open(info) as stream:
            left = start if start >= 0 else max(0, info.file_size + start)
            while left > 0:  # a packed member is unpacked up to the part
                left -= len(stream.read(min(left, _COPIED_BYTES))) or left
            return stream.read(length)

    def size(self, key: str) -> int | None:
        info = self._member(key)
        return None if info is None else info.file_size

    def listing(self, key: str = "") -> Listing | None:
        return self._listings.get(self.at(key)._prefix, Listing())

    def keys(self, limit: int) -> frozenset[str] | None:
        cut = len(self._prefix)
        found = [name[cut:] for name in self._members if name.startswith(self._prefix)]
        return frozenset(found) if len(found) <= limit else None

    def _member(self, key: str) -> zipfile.ZipInfo | None:
        info = self._members.get(self._prefix + joined(key))
        if info is not None and info.compress_type not in _PACKINGS:
            raise PlaceError("is a zip file that is not packed by deflate: pack it again")
        return info


def _by_parts(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (data := stream.read(min(size, _COPIED_BYTES))):
        yield data
        size -= len(data)


def _listings(paths: Iterable[str]) -> dict[str, Listing]:
    """Return what is in each folder, by the folder's path with a slash at its end."""
    folders: defaultdict[str, set[str]] = defaultdict(set)
    files: defaultdict[str, set[str]] = defaultdict(set)
    for path in paths:
        *outer, name = path.split("/", MAX_DEPTH)
        prefix = ""
        for folder in outer:
            folders[prefix].add(folder)
            prefix += f"{folder}/"
        files[prefix].add(name)
    return {
        prefix: Listing(tuple(sorted(folders[prefix])), tuple(sorted(files[prefix])))
        for prefix in folders.keys() | files.keys()
    }
