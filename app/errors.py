"""One error tree, rendered as application/problem+json (RFC 9457)."""

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from app.storage import is_disk_full

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"


class ProblemItem(BaseModel):
    """One thing that is wrong, and where: a field of the body or a file of the upload."""

    where: str = Field(examples=["body.pixel_size_nm"])
    message: str = Field(examples=["Input should be greater than 0"])


class Problem(BaseModel):
    """The body of every error response."""

    type: str = Field("about:blank", examples=["about:blank"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["1 field of the request is not valid"])
    code: str = Field(examples=["invalid_request"])
    errors: list[ProblemItem] = []


class ServiceError(Exception):
    """A refusal with its HTTP status, a stable code and words for the user."""

    status: int = 400
    code: str = "bad_request"

    def __init__(self, detail: str, errors: Sequence[ProblemItem] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = list(errors)
        self.headers: dict[str, str] = {}


class NotFound(ServiceError):
    status, code = 404, "not_found"


class Conflict(ServiceError):
    status, code = 409, "conflict"


class TooLarge(ServiceError):
    status, code = 413, "too_large"


class UnsupportedMedia(ServiceError):
    status, code = 415, "unsupported_media_type"


class NotAcceptable(ServiceError):
    status, code = 406, "not_acceptable"


class Invalid(ServiceError):
    status, code = 422, "invalid_request"


class Busy(ServiceError):
    status, code = 503, "busy"

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_after_seconds)}


class DatabaseDown(Busy):
    code = "database_down"


class OutOfStorage(ServiceError):
    status, code = 507, "disk_full"


# Of errors that the framework raises itself; Python's own names for them change.
_CODES = {kind.status: kind.code for kind in ServiceError.__subclasses__()}

PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "The request was refused.",
        "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


def invalid_fields(errors: Sequence[Any], prefix: str = "") -> Invalid:
    """Turn pydantic's error list into one refusal that names each field."""
    items = [
        ProblemItem(
            where=".".join([*filter(None, [prefix]), *(str(part) for part in error["loc"])]),
            message=error["msg"].removeprefix("Value error, "),
        )
        for error in errors
    ]
    count = len(items)
    noun = "field is" if count == 1 else "fields are"
    first = f"{items[0].where}: {items[0].message}" if items else ""
    return Invalid(f"{count} {noun} not valid: {first}", items)


def install(app: FastAPI) -> None:
    """Render every error of the application as a problem."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OSError, _system_error)
    app.add_exception_handler(OperationalError, _database_error)
    app.add_exception_handler(Exception, _server_error)


def _service_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return problem_response(error)


def problem_response(error: ServiceError) -> Response:
    """The refusal as an answer, for what stands outside of the application's own handlers."""
    return _render(error.status, error.code, error.detail, error.errors, error.headers)


def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _service_error(request, invalid_fields(error.errors()))


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if is_disk_full(error):  # while the upload was received
        return _system_error(request, error)
    code = _CODES.get(error.status_code) or HTTPStatus(error.status_code).name.lower()
    return _render(error.status_code, code, str(error.detail), [], dict(error.headers or {}))


def _system_error(request: Request, error: Exception) -> Response:
    if is_disk_full(error):
        return _service_error(request, OutOfStorage("the disk is full; nothing was kept"))
    return _server_error(request, error)


def _database_error(request: Request, error: Exception) -> Response:
    logger.error("database_failed path=%s error=%s", request.url.path, error)
    detail = "the database cannot be used now; /readyz says why"
    return _service_error(request, DatabaseDown(detail, retry_after_seconds=5))


def _server_error(request: Request, error: Exception) -> Response:
    logger.error("request_failed path=%s", request.url.path, exc_info=error)
    detail = "The service failed; its log has the reason. The request can be sent again."
    return _render(500, "internal_error", detail, [], {})


def _render(
    status: int, code: str, detail: str, errors: list[ProblemItem], headers: dict[str, str]
) -> Response:
    problem = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, code=code, errors=errors
    )
    # A refused key or file name may hold half a character, which UTF-8 cannot write.
    body = json.dumps(problem.model_dump(), ensure_ascii=False).encode(errors="backslashreplace")
    return Response(body, status, headers, media_type=PROBLEM_TYPE)


def refusal(field: str, message: str) -> Invalid:
    """Return the refusal of a field of the request's body; ``message`` is a whole sentence."""
    return Invalid(message, [ProblemItem(where=f"body.{field}", message=message)])
