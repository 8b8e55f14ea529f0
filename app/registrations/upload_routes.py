"""Uploads that can be resumed, by the protocol tus 1.0.0 (https://tus.io/protocols)."""

import base64
import binascii
from email.utils import format_datetime
from typing import Annotated, get_args
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from app.errors import Invalid, ProblemItem, UnsupportedVersion
from app.http.dependencies import ServicesDep, address
from app.middleware.error_handlers import DISK_FULL
from app.middleware.strict_route import StrictRoute, check_media_type
from app.registrations.uploads import Algorithm, Checksum, Uploads, Writer

VERSION = "1.0.0"
"""The version of the protocol."""

_PIECE = "application/offset+octet-stream"
_EXTENSIONS = "creation,expiration,checksum,termination"
_ALGORITHMS = get_args(Algorithm)
_WRITE_BYTES = 1 << 20

UploadId = Annotated[UUID, Path(description="The id of the upload.")]
Offset = Annotated[int, Field(ge=0, le=1 << 50)]


class UploadRead(BaseModel):
    """A file that comes in pieces."""

    name: str = Field(description="The name of the file.")
    num_bytes: int = Field(description="The length of the file, in bytes.")
    offset: int = Field(
        description="The number of bytes that have come; the next piece begins here."
    )


def check_version(
    tus_resumable: Annotated[
        str | None,
        Header(max_length=20, description=f"The version of the protocol, `{VERSION}`."),
    ] = None,
) -> None:
    """Refuse another version of the protocol, or none."""
    if tus_resumable != VERSION:
        raise UnsupportedVersion(
            f"the header Tus-Resumable is {tus_resumable!r}: send {VERSION}",
            {"Tus-Version": VERSION},
        )


def get_uploads(services: ServicesDep) -> Uploads:
    return Uploads(services.storage.uploads, services.settings.max_upload_bytes)


UploadsDep = Annotated[Uploads, Depends(get_uploads)]

router = APIRouter(prefix="/uploads", tags=["datasets"], route_class=StrictRoute)
_checked = [Depends(check_version)]


@router.options("", status_code=204, response_class=Response)
def describe_uploads(services: ServicesDep) -> Response:
    """Tell in headers what this service can do: version, extensions and sizes of tus."""
    headers = {
        "Tus-Version": VERSION,
        "Tus-Extension": _EXTENSIONS,
        "Tus-Checksum-Algorithm": ",".join(_ALGORITHMS),
        "Tus-Max-Size": str(services.settings.max_upload_bytes),
    }
    return _answer(204, headers)


@router.post(
    "", status_code=201, response_class=Response, responses=DISK_FULL, dependencies=_checked
)
def begin_upload(
    request: Request,
    uploads: UploadsDep,
    upload_length: Annotated[
        Offset, Header(description="The length of the file, in bytes.", examples=[1363148800])
    ],
    upload_metadata: Annotated[
        str,
        Header(
            max_length=8000,
            description="The word `filename`, a blank, and the name of the file in base64. More "
            "pairs may follow after commas; they are ignored.",
            examples=["filename dm9sdW1lLnRpZg=="],
        ),
    ],
) -> Response:
    """Begin to send a file in pieces, so that a broken connection costs one piece and not the file.

    The answer has the address of the upload in `Location`. Send the pieces there with PATCH. After
    a broken connection HEAD tells how much has come. When all files of a dataset have come, `POST
    /datasets` registers them: `uploads` in its body names them. An upload that gets no piece for a
    day is removed. The protocol is tus 1.0.0, for which there are clients in many languages.
    """
    upload_id = uploads.create(_file_name(upload_metadata), upload_length)
    location = {"Location": address(request, f"/uploads/{upload_id}")}
    return _answer(201, location | _expires(uploads, upload_id))


@router.get("/{upload_id}", dependencies=_checked)
def get_upload(upload_id: UploadId, uploads: UploadsDep, response: Response) -> UploadRead:
    """Return how much of a file has come; the headers of HEAD tell it too."""
    upload = uploads.get(upload_id)
    response.headers.update(
        {
            "Tus-Resumable": VERSION,
            "Upload-Offset": str(upload.offset),
            "Upload-Length": str(upload.num_bytes),
            "Cache-Control": "no-store",
        }
        | _expires(uploads, upload_id)
    )
    return UploadRead(name=upload.name, num_bytes=upload.num_bytes, offset=upload.offset)


@router.patch(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    responses=DISK_FULL,
    dependencies=_checked,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {_PIECE: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def send_piece(
    request: Request,
    upload_id: UploadId,
    uploads: UploadsDep,
    upload_offset: Annotated[
        Offset, Header(description="The place of the piece in the file; HEAD tells it.")
    ],
    upload_checksum: Annotated[
        str | None,
        Header(
            max_length=200,
            description="`sha256` or `sha1`, a blank, and the digest of the piece in base64. A "
            "piece with another digest is refused with 460, and nothing of it is kept.",
        ),
    ] = None,
) -> Response:
    """Send a piece of a file, of any length.

    409 says that the file is at another offset, and 423 that another request writes to it now. If
    the connection breaks, what has come of a piece without a checksum is kept.
    """
    check_media_type(request, _PIECE)
    checksum = None if upload_checksum is None else _checksum(upload_checksum)
    writer = await run_in_threadpool(uploads.open, upload_id, upload_offset, checksum)
    try:
        await _write(request, writer)
    except BaseException:
        await run_in_threadpool(writer.give_up)
        raise
    offset = await run_in_threadpool(writer.finish)
    return _answer(204, {"Upload-Offset": str(offset)} | _expires(uploads, upload_id))


@router.delete("/{upload_id}", status_code=204, response_class=Response, dependencies=_checked)
def delete_upload(upload_id: UploadId, uploads: UploadsDep) -> Response:
    """Remove an upload."""
    uploads.get(upload_id)
    uploads.remove(upload_id)
    return _answer(204, {})


async def _write(request: Request, writer: Writer) -> None:
    held = bytearray()
    try:
        async for chunk in request.stream():
            held += chunk
            if len(held) >= _WRITE_BYTES:
                data = bytes(held)
                held.clear()
                await run_in_threadpool(writer.write, data)
    finally:  # what came before the connection broke counts too
        await run_in_threadpool(writer.write, bytes(held))


def _answer(status: int, headers: dict[str, str]) -> Response:
    return Response(status_code=status, headers={"Tus-Resumable": VERSION} | headers)


def _expires(uploads: Uploads, upload_id: UUID) -> dict[str, str]:
    return {"Upload-Expires": format_datetime(uploads.expires_at(upload_id), usegmt=True)}


def _file_name(metadata: str) -> str:
    """Return the file name in the header Upload-Metadata."""
    pairs = (pair.strip().partition(" ") for pair in metadata.split(","))
    encoded = next((value for key, _, value in pairs if key == "filename"), "")
    try:
        name = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        name = ""
    name = name.replace("\\", "/").rpartition("/")[2]
    if not name:
        raise _header_problem(
            "Upload-Metadata",
            "names no file: send the word filename, a blank and the name in base64",
        )
    return name


def _checksum(header: str) -> Checksum:
    """Read the header Upload-Checksum."""
    algorithm, _, encoded = header.partition(" ")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        digest = b""
    for known in _ALGORITHMS:
        if algorithm == known and digest:
            return Checksum(known, digest)
    raise _header_problem(
        "Upload-Checksum",
        f"is no checksum: send {' or '.join(_ALGORITHMS)}, a blank and the digest in base64",
    )


def _header_problem(name: str, message: str) -> Invalid:
    return Invalid(
        f"the header {name} {message}", [ProblemItem(where=f"header.{name}", message=message)]
    )
