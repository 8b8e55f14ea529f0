"""Answers every error as application/problem+json (RFC 9457), and documents these answers."""

import json
import logging
from http import HTTPMethod, HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from app.errors import (
    Busy,
    ChecksumMismatch,
    DatabaseDown,
    OutOfStorage,
    Problem,
    ProblemItem,
    ServiceError,
    invalid_fields,
)
from app.middleware.logs import REQUEST_ID, REQUEST_ID_HEADER
from app.storage import is_disk_full

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
Responses = dict[int | str, dict[str, Any]]

# The codes of errors that the framework raises; Python's names for these change with its versions.
_CODES = {kind.status: kind.code for kind in ServiceError.__subclasses__()}

_TITLES = {
    413: "Content Too Large",
    422: "Unprocessable Content",
    ChecksumMismatch.status: "Checksum Mismatch",
}
"""The names of statuses that Python does not know, or knows by an older name."""


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {PROBLEM_TYPE: {"schema": schema}}}


ALWAYS: Responses = {
    "4XX": _problem(
        "The request was refused. `detail` says why, and `errors` lists the fields and files that "
        "are wrong."
    ),
    500: _problem("The service failed. Its log holds the reason."),
}
"""The answers that any route may give."""

_RETRY_AFTER: dict[str, Any] = {
    "headers": {
        "Retry-After": {
            "description": "The seconds after which to send the request again.",
            "schema": {"type": "integer", "minimum": 1},
        }
    }
}

NO_DATABASE: Responses = {
    503: _problem(
        "The service cannot use its database now, is busy, or is stopping; for a prediction also: "
        "it cannot use the model or the device. If the answer has the header `Retry-After`, send "
        "the same request again after so many seconds. Otherwise `detail` says what the operator "
        "has to do."
    )
    | _RETRY_AFTER
}
"""The answer of a route that cannot read or write the database."""

CHANGES: Responses = {
    403: _problem(
        "A web page of another site made the browser send the request, and nothing was changed."
    )
}
"""The answer of a route that changes something."""

BODY: Responses = {
    413: _problem("The body has more bytes, values or files than the service takes at once."),
    415: _problem("The body, or a file in it, is of a type that the route does not take."),
}
"""The answers of a route that takes a body."""

DISK_FULL: Responses = {
    507: _problem(
        "The service's disk is full, and nothing was kept (`code` is disk_full); or, for a "
        "prediction, the memory of the GPU is too small (gpu_oom)."
    )
}
"""The answer of a route that cannot store the files it was sent."""


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OSError, _system_error)
    app.add_exception_handler(OperationalError, _database_error)
    app.add_exception_handler(PoolTimeout, _no_connection)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _server_error)


def _gone(_request: Request, _error: Exception) -> Response:
    """Answer nobody: the client broke the connection while it sent, which is no failure."""
    return Response(status_code=400)


def _service_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return problem_response(error)


def problem_response(error: ServiceError) -> Response:
    """Return the answer to a refusal. Middleware calls this, since its errors reach no handler."""
    return _render(error.status, error.code, error.detail, error.errors, error.headers)


def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _service_error(request, invalid_fields(error.errors()))


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if is_disk_full(error):  # the disk became full while the upload was received
        return _system_error(request, error)
    code = _CODES.get(error.status_code) or HTTPStatus(error.status_code).name.lower()
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed_methods(request))
    return _render(error.status_code, code, str(error.detail), [], headers)


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods that any route answers at the path; the framework names one route's."""
    allowed = [
        method.value
        for method in HTTPMethod
        if any(
            route.matches({**request.scope, "method": method.value})[0] == Match.FULL
            for route in request.app.routes
        )
    ]
    return [*allowed, "HEAD"] if "GET" in allowed and "HEAD" not in allowed else allowed


def _system_error(request: Request, error: Exception) -> Response:
    if is_disk_full(error):
        message = (
            "the service's disk is full, and nothing was kept: ask the operator for disk space"
        )
        return _service_error(request, OutOfStorage(message))
    return _server_error(request, error)


def _database_error(request: Request, error: Exception) -> Response:
    logger.error("database_failed path=%s error=%s", request.url.path, error)
    detail = (
        "the service cannot use its database now: send the request again later; GET /readyz says "
        "what is wrong"
    )
    return _service_error(request, DatabaseDown(detail, retry_after_seconds=5))


def _no_connection(request: Request, _error: Exception) -> Response:
    logger.error("connections_exhausted path=%s", request.url.path)
    detail = "all connections to the database are in use: send the request again in some seconds"
    return _service_error(request, Busy(detail, retry_after_seconds=5))


def _server_error(request: Request, error: Exception) -> Response:
    logger.error("request_failed path=%s", request.url.path, exc_info=error)
    detail = "The service failed, and its log holds the reason. The request can be sent again."
    # This answer does not pass the middleware that gives all other answers their request id.
    return _render(500, "internal_error", detail, [], {REQUEST_ID_HEADER: REQUEST_ID.get()})


def _render(
    status: int, code: str, detail: str, errors: list[ProblemItem], headers: dict[str, str]
) -> Response:
    problem = Problem(
        title=_TITLES.get(status) or HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        errors=errors,
    )
    # A refused key or file name may hold half of a surrogate pair, which UTF-8 cannot encode.
    body = json.dumps(problem.model_dump(), ensure_ascii=False).encode(errors="backslashreplace")
    return Response(body, status, headers, media_type=PROBLEM_TYPE)
