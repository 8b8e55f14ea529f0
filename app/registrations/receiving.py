"""Writes the files of an upload to the data folder as they come, one after the other."""

import hashlib
from io import RawIOBase
from pathlib import Path, PurePath
from typing import BinaryIO, Literal, cast

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.errors import Invalid, ProblemItem, TooLarge
from app.middleware.forms import read_form
from app.registrations.plan import SentFile

MOST_FILES = 10_000
"""The most files of an upload."""

_KINDS: tuple[Literal["images", "masks"], ...] = ("images", "masks")


async def receive(request: Request, folder: Path) -> tuple[str, tuple[SentFile, ...]]:
    """Return the text of ``metadata``, and the files, which are written to ``folder``.

    Raises:
        Invalid: the form is cut off, lacks its metadata or has other parts than it should.
        TooLarge: it has too many files.
    """

    def open_file(number: int) -> BinaryIO:
        return cast(BinaryIO, _Sink(folder / f"{number:05d}"))

    try:
        form = await read_form(
            request, ("metadata",), _KINDS, max_files=MOST_FILES, open_file=open_file
        )
    except HTTPException as error:
        if not error.detail.startswith("Too many files"):
            raise
        raise TooLarge(
            f"the upload has more than {MOST_FILES} files: put the sections into stacks (TIFF or "
            "zipped Zarr), or register a folder of the service"
        ) from error
    metadata = form.get("metadata")
    if not isinstance(metadata, str):
        message = "the form has no text field `metadata`: put the dataset's description there, JSON"
        raise Invalid(message, [ProblemItem(where="body.metadata", message=message)])
    return metadata, tuple(file for kind in _KINDS for file in _sent(form, kind))


def _sent(form: FormData, kind: Literal["images", "masks"]) -> list[SentFile]:
    files = []
    for number, part in enumerate(form.getlist(kind)):
        if not isinstance(part, UploadFile):
            message = f"a part named {kind!r} is no file: send each as a file with a file name"
            raise Invalid(message, [ProblemItem(where=f"body.{kind}", message=message)])
        name = PurePath(part.filename or "").name or str(number)
        files.append(cast(_Sink, part.file).sent(kind, name))
    return files


class _Sink(RawIOBase):
    """A file that is written once, and hashed on the way.

    It is open only while it is written: the end of a form of small files comes in one piece.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._digest = hashlib.sha256()
        path.touch(exist_ok=False)

    def write(self, data: bytes) -> int:  # type: ignore[override] # only bytes come
        with self._path.open("ab") as file:
            file.write(data)
        self._digest.update(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Do nothing: a form goes back to the start of a file that has come as a whole."""
        assert (offset, whence) == (0, 0)
        return 0

    def sent(self, kind: Literal["images", "masks"], name: str) -> SentFile:
        tag = f"sha256 {self._digest.hexdigest()}"
        return SentFile(kind=kind, name=name, path=self._path.name, tag=tag)
