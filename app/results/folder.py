"""Publishes a folder: copies its files to a bucket, or to a folder of another disk.

Each file is read back and compared by its SHA-256. The file ``SHA256SUMS`` is written last, so a
copy that holds it is whole; ``sha256sum --check SHA256SUMS`` checks it again. A file that is there
already, and equal, is not sent again, so publishing may be interrupted and repeated at any time.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from models.data.readers.places import PlaceError, joined
from models.data.readers.remote_store import in_words, is_url, needing_obstore, open_store

if TYPE_CHECKING:
    from obstore.store import HTTPStore, LocalStore, S3Store

    Store: TypeAlias = S3Store | HTTPStore | LocalStore

SUMS = "SHA256SUMS"
_PIECE_BYTES = 8 << 20


class Destination:
    """A place that takes published folders: ``s3://bucket/path``, or the path of a folder."""

    def __init__(self, address: str) -> None:
        """Open the place; nothing is asked of a server yet.

        Raises:
            PlaceError: there is no such folder, or the package obstore is not installed.
        """
        self._address = address.rstrip("/")
        self._store: Store
        if is_url(address):
            self._store, self._prefix = open_store(address)
            return
        if not Path(address).is_dir():  # a disk that is not mounted must not be written beside
            raise PlaceError(f"there is no folder {address}: make it, or mount its disk")
        with needing_obstore():
            from obstore.store import LocalStore
        self._store, self._prefix = LocalStore(address), ""

    def publish(
        self, folder: Path, name: str, *, before_file: Callable[[], None] = lambda: None
    ) -> str:
        """Copy all files below a folder to ``name`` in this place; return the copy's address.

        ``before_file`` is called before each file, and may end the work by an exception.

        Raises:
            PlaceError: a file cannot be written, or is not the same when it is read back.
        """
        sums = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            before_file()
            key = path.relative_to(folder).as_posix()
            digest = _sha256(_pieces(path))
            self._put(f"{name}/{key}", path, digest)
            sums.append(f"{digest}  {key}\n")
        before_file()
        listed = "".join(sums).encode()
        self._put(f"{name}/{SUMS}", listed, _sha256([listed]))
        return f"{self._address}/{name}"

    def _put(self, key: str, file: Path | bytes, digest: str) -> None:
        """Write a file, unless it is there already, and read it back."""
        import obstore

        path = joined(self._prefix, key)
        if self._digest(path, key) == digest:
            return
        with in_words(key, "written"):
            obstore.put(self._store, path, file)
        if self._digest(path, key) != digest:
            raise PlaceError(f"cannot be written at {key}: another file is read back than was sent")

    def _digest(self, path: str, key: str) -> str | None:
        """Return the SHA-256 of a file of this place; None if there is no such file."""
        import obstore

        with in_words(key):
            try:
                answer = obstore.get(self._store, path)
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None
            return _sha256(map(bytes, answer.stream(min_chunk_size=_PIECE_BYTES)))


def _pieces(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _sha256(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
