"""Keeps files that come in pieces, so that a sender whose connection broke can go on.

An upload is a folder: ``data`` holds the bytes, ``upload.json`` the facts. The offset in the facts
counts bytes that are on the disk. Bytes behind it are not trusted, because the request that wrote
them did not end.
"""

import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from app.datasets.schemas import SentUploads
from app.errors import ChecksumMismatch, Conflict, Locked, NotFound, OutOfStorage, TooLarge
from app.registrations.plan import SentFile
from app.storage import STALE_SECONDS
from models.data.files import written_aside

Algorithm = Literal["sha1", "sha256"]

_FACTS, _DATA = "upload.json", "data"
_RECORD_BYTES = 1 << 23


class Upload(BaseModel):
    """The facts of an upload: the name and length of its file, and how much of it has come."""

    model_config = ConfigDict(frozen=True)

    name: str
    num_bytes: int
    offset: int = 0


@dataclass(frozen=True)
class Checksum:
    """The checksum that a piece must have."""

    algorithm: Algorithm
    digest: bytes


class Uploads:
    """The uploads in a folder; ``max_bytes`` bounds the length of each."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def create(self, name: str, num_bytes: int) -> UUID:
        """Begin an upload.

        Raises:
            TooLarge: the file is longer than allowed.
            OutOfStorage: the disk has less room than the file takes.
        """
        if num_bytes > self._max_bytes:
            raise TooLarge(
                f"the file has {num_bytes} bytes and the service takes up to {self._max_bytes}: "
                "send it in smaller parts"
            )
        if num_bytes > shutil.disk_usage(self._folder).free:
            raise OutOfStorage(
                f"the service has no room for {num_bytes} bytes: ask the operator for disk space"
            )
        upload_id = uuid4()
        folder = self._path(upload_id)
        folder.mkdir()
        (folder / _DATA).touch()
        _record(folder, Upload(name=name, num_bytes=num_bytes))
        return upload_id

    def get(self, upload_id: UUID) -> Upload:
        """Return the facts of an upload; NotFound if there is none, or it has expired."""
        try:
            return Upload.model_validate_json((self._path(upload_id) / _FACTS).read_bytes())
        except (FileNotFoundError, ValidationError) as error:
            raise NotFound(
                f"there is no upload {upload_id}: it has expired, or its file was registered; send "
                "the file anew"
            ) from error

    def expires_at(self, upload_id: UUID) -> datetime:
        """Return the time at which the upload is removed if nothing more comes."""
        try:
            touched = self._path(upload_id).stat().st_mtime
        except FileNotFoundError:
            touched = 0
        return datetime.fromtimestamp(touched + STALE_SECONDS, UTC)

    def open(self, upload_id: UUID, offset: int, checksum: Checksum | None = None) -> "Writer":
        """Open an upload to go on at an offset.

        Raises:
            NotFound: there is no such upload.
            Conflict: it is not at ``offset``.
            Locked: another request writes to it.
        """
        self.get(upload_id)
        folder = self._path(upload_id)
        file = (folder / _DATA).open("r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go with the process
            upload = self.get(upload_id)
            if upload.offset != offset:
                raise Conflict(
                    f"upload {upload_id} is at offset {upload.offset}, not {offset}: go on there"
                )
            file.truncate(offset)
            file.seek(offset)
        except BlockingIOError as error:
            file.close()
            raise Locked(
                f"another request writes to upload {upload_id}: ask for its offset later"
            ) from error
        except BaseException:
            file.close()
            raise
        return Writer(folder, file, upload, checksum)

    def remove(self, upload_id: UUID) -> None:
        """Remove an upload, if it exists."""
        shutil.rmtree(self._path(upload_id), ignore_errors=True)

    def link(self, wanted: SentUploads, folder: Path) -> tuple[SentFile, ...]:
        """Link the files of finished uploads into a folder, and return them.

        Raises:
            NotFound: names an upload that is not there.
            Conflict: names an upload that is not finished.
        """
        files = []
        kinds: tuple[Literal["images", "masks"], ...] = ("images", "masks")
        for kind in kinds:
            for number, upload_id in enumerate(getattr(wanted, kind)):
                upload = self.get(upload_id)
                if upload.offset < upload.num_bytes:
                    raise Conflict(
                        f"upload {upload_id} has {upload.offset} of {upload.num_bytes} bytes: send "
                        "the rest first"
                    )
                path = f"{kind}-{number:05d}"
                os.link(self._path(upload_id) / _DATA, folder / path)
                tag = f"upload {upload_id}"
                files.append(SentFile(kind=kind, name=upload.name, path=path, tag=tag))
        return tuple(files)

    def _path(self, upload_id: UUID) -> Path:
        return self._folder / str(upload_id)


class Writer:
    """Appends bytes to an upload. It has to be ended by ``finish`` or ``give_up``."""

    def __init__(
        self, folder: Path, file: BinaryIO, upload: Upload, checksum: Checksum | None
    ) -> None:
        self._folder, self._file, self._upload, self._checksum = folder, file, upload, checksum
        self._hash = None if checksum is None else hashlib.new(checksum.algorithm)
        self._offset = upload.offset

    def write(self, data: bytes) -> None:
        """Append bytes; TooLarge if they go beyond the length of the file."""
        if self._offset + len(data) > self._upload.num_bytes:
            raise TooLarge(
                f"the upload was declared to have {self._upload.num_bytes} bytes, and more have "
                "come: begin a new one"
            )
        self._file.write(data)
        self._offset += len(data)
        if self._hash is not None:
            self._hash.update(data)
        elif self._offset - self._upload.offset >= _RECORD_BYTES:
            self._keep()

    def finish(self) -> int:
        """Keep what was written, and return the new offset.

        Raises:
            ChecksumMismatch: the bytes are not those that were sent, so none is kept.
        """
        try:
            digest = None if self._hash is None else self._hash.digest()
            if self._checksum is not None and digest != self._checksum.digest:
                raise ChecksumMismatch(
                    "the bytes have another checksum than was declared, so none was kept: send "
                    "this piece again"
                )
            self._keep()
            return self._offset
        finally:
            self._file.close()

    def give_up(self) -> None:
        """Keep what was written before the request broke off, unless it cannot be checked."""
        try:
            if self._checksum is None:
                self._keep()
        finally:
            self._file.close()

    def _keep(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._upload = self._upload.model_copy(update={"offset": self._offset})
        _record(self._folder, self._upload)


def _record(folder: Path, upload: Upload) -> None:
    with written_aside(folder / _FACTS, durable=True) as draft:
        draft.write_text(upload.model_dump_json())
