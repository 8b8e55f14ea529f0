"""Refuses what a web page of another site makes a browser send to the API.

A page may let the browser of its reader send a form to any address, such as that of a service on
the reader's own computer. The page cannot read the answer, but the service would have stored or
changed something.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ServiceError
from app.middleware.error_handlers import problem_response
from app.middleware.host_check import host_and_port
from app.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing."""

# The browser's own word about the page: of this very address, or no page at all.
_OWN_SITE = frozenset({"same-origin", "none"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


class OriginNotAllowed(ServiceError):
    status, code = 403, "origin_not_allowed"


class OriginCheck:
    """Refuses changes that pages of other sites ask for: an ASGI middleware.

    Browsers name the page in the headers ``Sec-Fetch-Site`` and ``Origin``. Other programs send
    neither, and are answered.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._allowed = frozenset(settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            page = self._foreign_page(Headers(scope=scope))
            if page is not None:
                message = (
                    f"a web page of {page} made the browser send this request, so the service "
                    "changes nothing: send it from a page of the service or from a program. If the "
                    "page is yours, serve it under the service's own address, and let the operator "
                    "add the host to STYLEFILTER_ALLOWED_HOSTS"
                )
                app = problem_response(OriginNotAllowed(message))
        await app(scope, receive, send)

    def _foreign_page(self, headers: Headers) -> str | None:
        """Return words for the page of another site that asks; None if there is no such page."""
        sites = headers.getlist("sec-fetch-site")
        origins = headers.getlist("origin")
        for origin in origins:
            host, port = _host_of(origin)
            if host is None or not self._allowed & {host, "*"}:
                return f"the origin {origin[:200]!r}"
            if not sites and _other_port(host, port, headers.get("host", "")):
                return f"the origin {origin[:200]!r}"
        if any(site not in _OWN_SITE for site in sites):
            return "another site"
        return None


def _host_of(origin: str) -> tuple[str | None, int | None]:
    """Return host and port of an origin; no host for the origin `null` of a page that hides its."""
    scheme, separator, rest = origin.partition("://")
    if not separator:
        return None, None
    host, port = host_and_port(rest)
    return host, port or _DEFAULT_PORTS.get(scheme.lower())


def _other_port(host: str, port: int | None, called: str) -> bool:
    """Tell whether the page is of the host that is called, and of another port.

    A proxy may call the API by another name, or leave the port out, so that nothing can be told.
    """
    called_host, called_port = host_and_port(called)
    return called_port is not None and host == called_host and port != called_port
