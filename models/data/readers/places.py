"""The places where files lie: a folder of this computer, a zip file, or an address elsewhere.

A key is a file's path in its place, with slashes: ``s0/c/0/0/1``. The key of a place itself is
empty.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Protocol, cast

from models.data.readers.limits import ImageError

MAX_DEPTH = 32
"""The most folders in each other."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_IN_MEMORY_BYTES = 16 << 20


class PlaceError(ImageError):
    """A place or a file of it cannot be read; the message follows its name and says why."""


class DeniedError(PlaceError):
    """A file may not be read. Some servers answer so for files that do not exist."""


@dataclass(frozen=True)
class Listing:
    """The names in a folder, sorted."""

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Place(Protocol):
    """A folder of files. Each method raises PlaceError if a file is there and cannot be read."""

    @property
    def name(self) -> str:
        """The last part of the place's path."""

    def at(self, key: str) -> "Place":
        """Return the folder ``key`` as a place of its own; it need not exist."""

    def open(self, key: str) -> BinaryIO | None:
        """Open a file to read it from any position; None if there is no such file."""

    def read(self, key: str, limit: int) -> bytes | None:
        """Return a file of at most ``limit`` bytes; None if there is no such file."""

    def read_part(self, key: str, start: int, length: int) -> bytes | None:
        """Return ``length`` bytes of a file, or what it has of them; None if there is no such file.

        A negative ``start`` counts from the file's end.
        """

    def size(self, key: str) -> int | None:
        """Return the number of bytes of a file; None if there is no such file."""

    def listing(self, key: str = "") -> Listing | None:
        """Return what is in a folder, empty if it does not exist; None if nobody can list it."""

    def keys(self, limit: int) -> frozenset[str] | None:
        """Return all keys of the place; None if it has more than ``limit``, or cannot be listed."""


@dataclass(frozen=True)
class PlacedFile:
    """A file, or a folder that holds one image as Zarr does, and its place."""

    place: Place
    key: str


def placed(path: Path) -> PlacedFile:
    """Return a file or folder of the user's own: links may lead anywhere.

    Raises:
        PlaceError: there is nothing at this path.
    """
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise PlaceError("cannot be read: there is no such file") from error
    return PlacedFile(LocalPlace.anywhere(real.parent), real.name)


def joined(*parts: str) -> str:
    """Join parts of a key; PlaceError if they lead out of the place."""
    names = [name for part in parts for name in part.split("/") if name not in ("", ".")]
    if any(name == ".." or "\0" in name for name in names):
        raise PlaceError(f"names the path {'/'.join(parts)!r}, which leads out of its folder")
    return "/".join(names)


@dataclass(frozen=True)
class LocalPlace:
    """A folder of this computer. No file outside of ``root`` is read, whatever links there are.

    ``root`` has no links in its path. Files that are no regular files, such as pipes, are refused.
    """

    folder: Path
    root: Path

    @classmethod
    def of(cls, folder: Path) -> "LocalPlace":
        """Return the place of a folder whose files all lie in it."""
        root = folder.resolve()
        return cls(root, root)

    @classmethod
    def anywhere(cls, folder: Path) -> "LocalPlace":
        """Return the place of a folder from which links may lead to all that its user may read."""
        return cls(folder.resolve(), Path("/"))

    @property
    def name(self) -> str:
        return self.folder.name

    def at(self, key: str) -> "LocalPlace":
        return LocalPlace(self.folder / joined(key), self.root)

    def open(self, key: str) -> BinaryIO | None:
        """Open a regular file below the root to read it; None if there is none."""
        path = self.folder / joined(key)
        try:
            # Without O_NONBLOCK, opening a pipe would wait for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._unopened(path, error)
            return None
        try:
            self._check(path, descriptor)
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISDIR(mode):
                if not stat.S_ISREG(mode):
                    raise PlaceError(
                        f"cannot be read: {self._key(path)} is neither a file nor a folder"
                    )
                return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def read(self, key: str, limit: int) -> bytes | None:
        stream = self.open(key)
        if stream is None:
            return None
        with stream:
            check_bytes(key, os.fstat(stream.fileno()).st_size, limit)
            return stream.read(limit)

    def read_part(self, key: str, start: int, length: int) -> bytes | None:
        stream = self.open(key)
        if stream is None:
            return None
        with stream:
            if start < 0:
                start = max(0, os.fstat(stream.fileno()).st_size + start)
            stream.seek(start)
            return stream.read(length)

    def size(self, key: str) -> int | None:
        stream = self.open(key)
        if stream is None:
            return None
        with stream:
            return os.fstat(stream.fileno()).st_size

    def listing(self, key: str = "") -> Listing | None:
        found = list(self._entries(self.folder / joined(key)))
        folders = sorted(entry.name for entry in found if _is_folder(entry))
        files = sorted(entry.name for entry in found if not _is_folder(entry))
        return Listing(tuple(folders), tuple(files))

    def keys(self, limit: int) -> frozenset[str] | None:
        found: set[str] = set()
        folders = [("", self.folder)]
        while folders:
            prefix, folder = folders.pop()
            if prefix.count("/") > MAX_DEPTH:
                raise PlaceError(f"has more than {MAX_DEPTH} folders in each other, as {prefix}")
            for entry in self._entries(folder):
                if entry.is_symlink():
                    self._check_link(Path(entry.path))
                if _is_folder(entry):
                    folders.append((f"{prefix}{entry.name}/", folder / entry.name))
                else:
                    found.add(prefix + entry.name)
            if len(found) > limit:
                return None
        return frozenset(found)

    def check(self, key: str) -> None:
        """Raise PlaceError unless a file or folder may be read; nothing is opened."""
        path = self.folder / joined(key)
        try:
            self._check_link(path)
            mode = path.stat().st_mode
        except OSError as error:
            self._unopened(path, error)
            return
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise PlaceError(f"cannot be read: {self._key(path)} is neither a file nor a folder")
        if not os.access(path, os.R_OK, effective_ids=True):
            raise self._denied(path)

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        """Yield what is in a folder below the root; nothing if it does not exist."""
        try:
            if not self._inside(os.path.realpath(folder)):
                raise self._led_out(folder)
            with os.scandir(folder) as entries:
                yield from entries
        except OSError as error:
            self._unopened(folder, error)

    def _check_link(self, path: Path) -> None:
        if not self._inside(os.path.realpath(path)):
            raise self._led_out(path)
        if not os.path.exists(path):
            raise self._led_nowhere(path)

    def _check(self, path: Path, descriptor: int) -> None:
        """Refuse what was opened if it lies outside of the root: links may change at any time."""
        opened = os.path.realpath(path)
        with suppress(OSError):  # without /proc, the path tells where the file lay a moment ago
            opened = os.readlink(f"/proc/self/fd/{descriptor}")
        if not self._inside(opened):
            raise self._led_out(path)

    def _inside(self, path: str) -> bool:
        return path == str(self.root) or path.startswith(os.path.join(self.root, ""))

    def _led_out(self, path: Path) -> PlaceError:
        return PlaceError(
            f"cannot be read: {self._key(path)} is a link that leads out of the folder. Copy the "
            "file itself"
        )

    def _led_nowhere(self, path: Path) -> PlaceError:
        return PlaceError(
            f"cannot be read: {self._key(path)} is a link that leads nowhere. Copy the file itself"
        )

    def _denied(self, path: Path) -> DeniedError:
        return DeniedError(
            f"cannot be read: this program has no permission to read {self._key(path)}. Change its "
            "permissions"
        )

    def _unopened(self, path: Path, error: OSError) -> None:
        """Return for a file that does not exist; raise PlaceError for one that cannot be read."""
        if error.errno in _ABSENT and not path.is_symlink():
            return
        if error.errno == errno.EACCES:
            raise self._denied(path) from error
        if error.errno in (*_ABSENT, errno.ELOOP):
            raise self._led_nowhere(path) from error
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, or a device
            raise PlaceError(
                f"cannot be read: {self._key(path)} is neither a file nor a folder"
            ) from error
        if error.errno == errno.ENAMETOOLONG:
            return
        raise error

    def _key(self, path: Path) -> str:
        # Messages go to people who need not know the folders of this computer.
        known = self.folder if self.root == Path("/") else self.root
        return str(path.relative_to(known) if path.is_relative_to(known) else path.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def spooled(parts: Iterable[bytes]) -> BinaryIO:
    """Return these bytes as an open file: in memory, or on the disk if they are many."""
    with ExitStack() as opened:
        copy = opened.enter_context(SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES))
        for part in parts:
            copy.write(part)
        copy.seek(0)
        opened.pop_all()  # whoever asked for the file closes it
    return cast(BinaryIO, copy)


def check_bytes(key: str, size: int, limit: int) -> None:
    """Raise PlaceError for a file of more bytes than allowed."""
    if size > limit:
        raise PlaceError(f"has a file {key} of more than {limit} bytes")
