"""Lets the API answer only to host names that the operator allows.

Otherwise a web page could give its own host name the API's address, and call the API from the
browser of somebody who reads the page (DNS rebinding).
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ServiceError
from app.middleware.error_handlers import problem_response
from app.settings import Settings


class HostNotAllowed(ServiceError):
    status, code = 421, "host_not_allowed"


class HostCheck:
    """Refuses requests for host names that are not allowed: an ASGI middleware."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._allowed = frozenset(settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and "*" not in self._allowed:
            host = Headers(scope=scope).get("host", "")
            if host_and_port(host)[0] not in self._allowed:
                message = (
                    f"the service does not answer to the host {host!r}: use one of its own names, "
                    "or ask the operator to add this one to STYLEFILTER_ALLOWED_HOSTS"
                )
                app = problem_response(HostNotAllowed(message))
        await app(scope, receive, send)


def host_and_port(address: str) -> tuple[str | None, int | None]:
    """Return the name, in lower case and without brackets, and the port of ``host:port``.

    Each is None where the address has none, or where it holds more than host and port.
    """
    try:
        parts = urlsplit(f"//{address}")
        if parts.netloc != address or "@" in address:
            return None, None
        return parts.hostname, parts.port
    except ValueError:
        return None, None
