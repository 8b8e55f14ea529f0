"""The errors that the service answers with, and their schema (RFC 9457); imports no FastAPI."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

MOST_ERRORS = 100
"""The most errors that a refusal lists."""

_WHERE_CHARACTERS, _MESSAGE_CHARACTERS, _DETAIL_CHARACTERS = 300, 1000, 2000


class ProblemItem(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(
        description="The field of the request that is wrong, or the uploaded file.",
        examples=["body.pixel_size_nm"],
    )
    message: str = Field(
        description="The reason why it is wrong.", examples=["Input should be greater than 0"]
    )


class Problem(BaseModel):
    """The answer to a request that was refused or failed."""

    type: str = Field("about:blank", description="Always about:blank.", examples=["about:blank"])
    title: str = Field(
        description="The name of the HTTP status.", examples=["Unprocessable Content"]
    )
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(
        description="The reason, in words.",
        examples=["1 field is not valid: body.pixel_size_nm: Input should be greater than 0"],
    )
    code: str = Field(
        description="A short name of the error, for programs; later versions keep it.",
        examples=["invalid_request"],
    )
    errors: list[ProblemItem] = Field(
        [],
        description="The fields and files that are wrong, 100 of them at most; empty if the reason "
        "is another.",
    )


class ServiceError(Exception):
    """A refusal, with an HTTP status, a code that later versions keep, and words for the user.

    It tells at most MOST_ERRORS errors and shortens long texts, since a client may send many wrong
    things and long names.
    """

    status: int = 400
    code: str = "bad_request"

    def __init__(self, detail: str, errors: Sequence[ProblemItem] = ()) -> None:
        untold = len(errors) - MOST_ERRORS
        more = f" (and {untold} more, which are not listed)" if untold > 0 else ""
        self.detail = _shortened(detail, _DETAIL_CHARACTERS) + more
        super().__init__(self.detail)
        self.errors = [
            ProblemItem(
                where=_shortened(item.where, _WHERE_CHARACTERS),
                message=_shortened(item.message, _MESSAGE_CHARACTERS),
            )
            for item in errors[:MOST_ERRORS]
        ]
        self.headers: dict[str, str] = {}


class NotFound(ServiceError):
    status, code = 404, "not_found"


class Conflict(ServiceError):
    status, code = 409, "conflict"


class ChangedMeanwhile(ServiceError):
    status, code = 412, "changed_meanwhile"


class UnsupportedVersion(ServiceError):
    status, code = 412, "unsupported_version"

    def __init__(self, detail: str, headers: dict[str, str]) -> None:
        super().__init__(detail)
        self.headers = headers


class TooLarge(ServiceError):
    status, code = 413, "too_large"


class UnsupportedMedia(ServiceError):
    status, code = 415, "unsupported_media_type"


class NotAcceptable(ServiceError):
    status, code = 406, "not_acceptable"


class Invalid(ServiceError):
    status, code = 422, "invalid_request"


class Locked(ServiceError):
    status, code = 423, "locked"


class ChecksumMismatch(ServiceError):
    status, code = 460, "checksum_mismatch"  # the status that the protocol tus gives it


class Busy(ServiceError):
    status, code = 503, "busy"

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_after_seconds)}


class DatabaseDown(Busy):
    code = "database_down"


class OutOfStorage(ServiceError):
    status, code = 507, "disk_full"


def invalid_fields(errors: Sequence[Any], prefix: str = "") -> Invalid:
    """Make one refusal of pydantic's errors; it names each field that is wrong."""
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
    more = "the first is " if count > 1 else ""
    return Invalid(f"{count} {noun} not valid: {more}{first}", items)


def refusal(field: str, message: str) -> Invalid:
    """Return the refusal of a field of the request's body; ``message`` is a whole sentence."""
    return Invalid(message, [ProblemItem(where=f"body.{field}", message=message)])


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
