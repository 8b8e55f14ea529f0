"""Which host names the API answers to: a web page must not reach it under a name of its own."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.error_handlers import problem_response
from app.errors import ServiceError
from app.settings import Settings


class HostNotAllowed(ServiceError):
    status, code = 421, "host_not_allowed"


class HostCheck:
    """ASGI middleware against DNS rebinding: refuses requests for names that are not ours."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._allowed = frozenset(settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and "*" not in self._allowed:
            host = Headers(scope=scope).get("host", "")
            if _name(host) not in self._allowed:
                message = f"the host {host!r} is none of STYLEFILTER_ALLOWED_HOSTS"
                app = problem_response(HostNotAllowed(message))
        await app(scope, receive, send)


def _name(host: str) -> str | None:
    """The name in a Host header, in lower case, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
