"""Gives each request an id, by which its answer and its log lines are found."""

import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.logs import REQUEST_ID, REQUEST_ID_HEADER

_ALLOWED = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""Matches ids without characters that could break a log line."""


class RequestId:
    """Takes the id that a client or proxy sends, or makes one, and puts it into the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _ALLOWED.fullmatch(given) else uuid4().hex
        # The id is never reset: each request has a context of its own, and the answer to an
        # unexpected error is made after this call.
        REQUEST_ID.set(request_id)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        await self._app(scope, receive, send_named)
