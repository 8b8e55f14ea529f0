"""Sends a file in pieces, by the protocol tus 1.0.0: a broken connection costs one piece."""

import base64
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import httpx

PIECE_BYTES = 1 << 24

_VERSION = {"Tus-Resumable": "1.0.0"}
_AGAIN_SECONDS = 1.0
_NOT_FINAL = (409, 423, 460)
"""The piece has to be sent again, at the offset that the service tells."""

_DISK_FULL = 507

Sent = Callable[[int], None]
"""A function that is told the number of bytes of a file that have arrived."""


class PieceRefused(Exception):
    """The service refused a file; ``response`` says why."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"status {response.status_code}")
        self.response = response


def send_file(
    http: httpx.Client, path: Path, *, patience_seconds: float, sent: Sent = lambda _: None
) -> UUID:
    """Send a file to ``/uploads``, and return the id of the upload.

    Raises:
        PieceRefused: the service does not take the file.
        httpx.HTTPError: the service could not be reached for ``patience_seconds``.
        OSError: the file cannot be read, or became shorter.
    """
    size = path.stat().st_size
    name = base64.b64encode(path.name.encode()).decode()
    headers = {"Upload-Length": str(size), "Upload-Metadata": f"filename {name}"}
    begun = _accepted(http.post("/uploads", headers=_VERSION | headers))
    upload_id = UUID(begun.headers["location"].rpartition("/")[2])
    address, offset, last = f"/uploads/{upload_id}", 0, time.monotonic()
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            data = file.read(min(PIECE_BYTES, size - offset))
            if not data:
                raise OSError(f"{path} became shorter while it was sent")
            try:
                offset = _send_piece(http, address, offset, data)
                last = time.monotonic()
                sent(offset)
            except httpx.HTTPError:
                if time.monotonic() - last > patience_seconds:
                    raise
                time.sleep(_AGAIN_SECONDS)
    return upload_id


def _send_piece(http: httpx.Client, address: str, offset: int, data: bytes) -> int:
    """Send a piece, and return the offset of the next one."""
    checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
    headers = {
        "Upload-Offset": str(offset),
        "Upload-Checksum": f"sha256 {checksum}",
        "Content-Type": "application/offset+octet-stream",
    }
    response = http.patch(address, headers=_VERSION | headers, content=data)
    if response.status_code in _NOT_FINAL:
        if response.status_code != 409:
            time.sleep(_AGAIN_SECONDS)
        # The answer to an earlier piece may have been lost, so that this one came twice.
        response = http.head(address, headers=_VERSION)
    return int(_accepted(response).headers["upload-offset"])


def _accepted(response: httpx.Response) -> httpx.Response:
    if response.is_server_error and response.status_code != _DISK_FULL:
        response.raise_for_status()  # another try may meet a service that works again
    if response.is_error:
        raise PieceRefused(response)
    return response
