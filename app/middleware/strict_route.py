"""Answers only requests that a route understands as a whole; all others are refused by name."""

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, ClassVar, TypeVar

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.params import Form
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from starlette.datastructures import FormData
from starlette.routing import Match
from starlette.types import Scope

from app.errors import Invalid, ProblemItem, UnsupportedMedia
from app.http.dependencies import get_services
from app.http.json_body import read_json
from app.middleware.error_handlers import BODY, CHANGES, Responses
from app.middleware.forms import read_form
from app.middleware.origin_check import SAFE_METHODS

JSON, FORM = "application/json", "multipart/form-data"

_LARGE_BYTES = 100_000
"""Above it, reading JSON would keep other requests waiting, and takes a thread."""

Read = TypeVar("Read")
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """Refuses unknown query parameters, other types of bodies, and unknown parts of forms.

    The body is read and validated here, before the framework would do it in the event loop.
    """

    _named: ClassVar[set[str]] = set()
    """The paths without a parameter, such as /jobs/adapt."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.responses = self._refusals() | self.responses
        if not self.param_convertors:
            self._named.add(path)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Leave a path that another route names to that route: ``adapt`` is no id of a job."""
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        if self.param_convertors and path in self._named:
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> _Handler:
        handle = super().get_route_handler()
        known = _query_names(self.dependant)
        read = self._reader()

        async def strict(request: Request) -> Response:
            _check_query(request, known)
            return await handle(request if read is None else await read(request))

        return strict

    def _refusals(self) -> Responses:
        """Return the answers of all routes of this kind, for the OpenAPI page."""
        has_body = self.body_field is not None or "requestBody" in (self.openapi_extra or {})
        changes = bool((self.methods or set()) - SAFE_METHODS)
        return (CHANGES if changes else {}) | (BODY if has_body else {})

    def _reader(self) -> Callable[[Request], Awaitable[Request]] | None:
        """Return the function that reads the body; None if the route reads it, or has none."""
        if self.body_field is None:
            return None
        kind = self.body_field.field_info.annotation
        if isinstance(self.body_field.field_info, Form):
            assert isinstance(kind, type)
            assert issubclass(kind, BaseModel)
            names = list(kind.model_fields)

            async def with_form(request: Request) -> Request:
                check_media_type(request, FORM)
                return _WithForm(request, await read_form(request, names, max_files=len(names)))

            return with_form
        assert kind is not None
        adapter: TypeAdapter[object] = TypeAdapter(kind)

        async def with_json(request: Request) -> Request:
            body = await request.body()
            if not body:  # the framework refuses this, unless the body may be left out
                return request
            check_media_type(request, JSON)
            return _WithJson(request, body, await json_of(request, adapter, body))

        return with_json


class _WithJson(Request):
    """A request whose JSON is validated already; the framework lets the object pass as it is."""

    def __init__(self, request: Request, body: bytes, content: object) -> None:
        super().__init__(request.scope, request.receive)
        self._bytes, self._content = body, content

    async def body(self) -> bytes:
        return self._bytes

    async def json(self) -> object:
        return self._content


class _WithForm(Request):
    """A request whose form was read already."""

    def __init__(self, request: Request, content: FormData) -> None:
        super().__init__(request.scope, request.receive)
        self._content = content

    async def form(self, **_limits: float) -> FormData:  # type: ignore[override]
        return self._content


def check_media_type(request: Request, *expected: str) -> str:
    """Return the type of the body; UnsupportedMedia unless it is one of the expected types."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in expected:
        raise UnsupportedMedia(
            f"the request has the content type {media_type!r}: send {' or '.join(expected)}"
        )
    return media_type


async def json_of(request: Request, kind: TypeAdapter[Read], body: bytes) -> Read:
    """Return the JSON of a body, or of a part of it, as the given type.

    Raises:
        Invalid: it is no JSON, or names each field that is wrong.
        TooLarge: it holds more values than any request needs.
        Busy: too many large bodies wait to be read.
    """
    return await in_turn(request, partial(read_json, kind), body)


async def in_turn(request: Request, read: Callable[[bytes], Read], body: bytes) -> Read:
    """Return what ``read`` makes of a body; a large one waits for its turn, in a thread.

    Raises:
        Busy: too many large bodies wait to be read.
    """
    if len(body) <= _LARGE_BYTES:
        return read(body)
    return await get_services(request).reading.run(read, body)


def _query_names(dependant: Dependant) -> frozenset[str]:
    """Return the names of all query parameters that a route or its dependencies take."""
    names: set[str] = set()
    for field in dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names |= kind.model_fields.keys()
        else:
            names.add(field.alias)
    return frozenset(names).union(*map(_query_names, dependant.dependencies))


def _check_query(request: Request, known: frozenset[str]) -> None:
    given = request.query_params
    problems = []
    for name in given:
        if name not in known:
            some = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
            message = f"this request takes no query parameter of this name: {some}"
        elif len(given.getlist(name)) > 1:
            message = "the parameter comes twice: name it once"
        else:
            continue
        problems.append(ProblemItem(where=f"query.{name}", message=message))
    if problems:
        raise Invalid(f"{problems[0].where}: {problems[0].message}", problems)
