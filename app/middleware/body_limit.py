"""Limits the bytes of a request's body. They are counted as they come, declared or not."""

import re

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.settings import Settings

LABELS_BYTES = 1 << 26
"""The largest body of labels, enough for a million images."""

_JSON_BYTES = 1 << 23
_LABELS_PATH = re.compile(r"/datasets/[^/]+/labels")
_DATASET = (
    "upload fewer files, register a folder of the service instead, or ask the operator to raise "
    "STYLEFILTER_MAX_UPLOAD_BYTES"
)
_FORM_BYTES = 1 << 20  # fields and boundaries around an uploaded image


class BodyLimit:
    """Refuses a body above the limit with 413, while it is being read: an ASGI middleware."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._uploads = {
            "/datasets": settings.max_upload_bytes,
            "/predict": settings.max_predict_bytes + _FORM_BYTES,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limit(scope, headers.get("content-type", ""))
        declared = headers.get("content-length", "0")
        received = int(declared) if declared.isdecimal() and int(declared) > limit else 0

        async def counted() -> Message:
            nonlocal received
            # A body whose declared length is above the limit is not read at all.
            message: Message = {} if received > limit else await receive()
            received += len(message.get("body", b""))
            if received > limit:
                advice = _DATASET if route_path(scope) == "/datasets" else "send a smaller one"
                raise HTTPException(
                    413, f"the request's body has more than {limit} bytes: {advice}"
                )
            return message

        await self._app(scope, counted, send)

    def _limit(self, scope: Scope, media_type: str) -> int:
        path = route_path(scope)
        if scope["method"] == "PATCH" and path.startswith("/uploads/"):
            return self._uploads["/datasets"]  # a piece is a file at most
        if media_type.lower().startswith("multipart/form-data"):
            return self._uploads.get(path, _JSON_BYTES)
        if scope["method"] == "PUT" and _LABELS_PATH.fullmatch(path):
            return LABELS_BYTES
        return _JSON_BYTES


def route_path(scope: Scope) -> str:
    """Return the path of a request as the routes name it: without the prefix of a proxy."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "").rstrip("/")
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path
