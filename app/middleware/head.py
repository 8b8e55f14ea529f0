"""Answers HEAD wherever the API answers GET: the same status and headers, and no body."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """Lets the routes of GET answer HEAD, and drops the body: an ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                # The answer is over at once, because an event stream would never end by itself.
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        # The server has to know the method that was sent, so it keeps its own scope.
        await self._app({**scope, "method": "GET"}, receive, send_head)
