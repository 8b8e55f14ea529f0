"""Reads uploaded forms, and refuses those that are cut off or have parts that nobody asked for."""

from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import aclosing
from typing import BinaryIO

from fastapi import Request
from fastapi.exceptions import HTTPException
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.errors import Invalid, ProblemItem

_MOST_FIELDS = 16
FIELD_BYTES = 1 << 22
"""The largest part of a form that is no file."""


OpenFile = Callable[[int], BinaryIO]
"""Opens what the file of a form is written to, by the number of the file."""


class _Parser(MultiPartParser):
    """Notices whether the form's end has come, and may write files to other places than memory."""

    ended = False
    open_file: OpenFile | None = None

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        given = self._current_part.file
        if given is not None and self.open_file is not None:
            given.file.close()  # the temporary file of the base class
            file = self.open_file(self._current_files)
            self._current_part.file = UploadFile(file, filename=given.filename)
            self._files_to_close_on_error[-1] = file  # type: ignore[call-overload] # closed alike

    def on_end(self) -> None:
        self.ended = True


async def read_form(
    request: Request,
    single: Collection[str],
    several: Collection[str] = (),
    *,
    max_files: int,
    open_file: OpenFile | None = None,
) -> FormData:
    """Return a form of multipart/form-data, whole; the caller closes it.

    ``single`` names the parts that come once at most, ``several`` those that may come again. Files
    are kept in memory or in temporary files, unless ``open_file`` opens others.

    Raises:
        Invalid: the form has no end, or names each part that is not expected or comes twice.
        HTTPException: it is no form, or has too many parts.
    """

    async def whole() -> AsyncGenerator[bytes]:
        async with aclosing(request.stream()) as stream:
            async for chunk in stream:
                yield chunk
        if not parser.ended:  # raised inside of the parser, which then closes its files
            raise Invalid(f"{_CUT.where}: {_CUT.message}", [_CUT])

    parser = _Parser(
        request.headers,
        whole(),
        max_files=max_files,
        max_fields=_MOST_FIELDS,
        max_part_size=FIELD_BYTES,
    )
    parser.open_file = open_file
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from error
    problems = list(_problems(form, single, several))
    if problems:
        await form.close()
        raise Invalid(f"{problems[0].where}: {problems[0].message}", problems)
    return form


_CUT = ProblemItem(
    where="body",
    message="the form ends before its closing boundary, so a part of it is lost: send it again",
)


def _problems(
    form: FormData, single: Collection[str], several: Collection[str]
) -> Iterator[ProblemItem]:
    for name in form:
        where = f"body.{name}"
        if name not in (*single, *several):
            known = ", ".join([*single, *several])
            message = f"the form has no part of this name: its parts are {known}"
            yield ProblemItem(where=where, message=message)
        elif name in single and len(form.getlist(name)) > 1:
            yield ProblemItem(where=where, message="the part comes twice: send it once")
