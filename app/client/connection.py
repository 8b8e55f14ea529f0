"""Sends requests to one service, and turns what goes wrong into errors for the caller."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError

from app.client.resumable import PieceRefused, send_file
from app.errors import Problem
from app.http.pagination import Page
from app.jobs.event_schemas import EventRead, read_events

Item = TypeVar("Item", bound=BaseModel)

# The service writes a comment to an idle stream every 15 s.
_STREAM_SECONDS = 45
_READY_SECONDS = 10
AGAIN_SECONDS = 1.0
"""The time between two tries, and between two looks at a job."""
PATIENCE_SECONDS = 30.0
"""The time for which a service that cannot be reached is tried again."""


class ApiError(Exception):
    """The service refused a request, or cannot be reached; the message says why."""


class Unavailable(ApiError):
    """The service cannot be reached or has failed. The same request may succeed later."""


class Connection:
    """Sends requests to one service."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout_seconds)

    def close(self) -> None:
        self._http.close()

    def answers(self, path: str) -> bool:
        """Return True if the service answers with status 200."""
        try:
            return self._http.get(path, timeout=_READY_SECONDS).status_code == 200
        except httpx.HTTPError:
            return False

    def send(self, method: str, path: str, **kwargs: object) -> httpx.Response:
        """Send a request with the arguments of ``httpx.Client.request``, and return the answer.

        Raises:
            ApiError: the service refused the request, or a file that was to be sent is unreadable.
            Unavailable: the service cannot be reached, or has failed.
        """
        try:
            response = self._http.request(method, path, **kwargs)  # type: ignore[arg-type]
        except (httpx.HTTPError, OSError) as error:
            if isinstance(error, OSError):  # it comes from a file that was to be sent
                raise ApiError(f"{method} {path}: {error}") from error
            raise Unavailable(f"{method} {path}: {self._unreached(error)}") from error
        if response.is_error:
            kind = Unavailable if response.is_server_error else ApiError
            raise kind(f"{method} {path}: {_detail(response)}")
        return response

    def read(self, kind: type[Item], method: str, path: str, **kwargs: object) -> Item:
        """Send a request, and return the answer as an object of the schema ``kind``."""
        return kind.model_validate_json(self.send(method, path, **kwargs).content)

    def events(self, path: str, after: int | None, patience_seconds: float) -> Iterator[EventRead]:
        """Yield the events of a stream; if it breaks, open it again where it broke.

        Raises:
            ApiError: the first try fails, or the service is away for ``patience_seconds``.
        """
        reached, lost = False, 0.0
        while True:
            try:
                with self._stream(path, after) as response:
                    reached, lost = True, 0.0
                    if response.status_code == 204:
                        return
                    for event in read_events(response.iter_lines()):
                        after = getattr(event, "id", after)
                        yield event
                after = after or 0  # without an id the service would send all events again
            except httpx.HTTPError as error:
                lost = lost or time.monotonic()
                if not reached or time.monotonic() - lost > patience_seconds:
                    raise ApiError(f"GET {path}: {self._unreached(error)}") from error
                time.sleep(AGAIN_SECONDS)

    def pages(self, path: str, kind: type[Item], **query: str) -> Iterator[Item]:
        """Yield the items of a list, page by page."""
        cursor: str | None = None
        while True:
            params = query | {"limit": "1000"} | ({"cursor": cursor} if cursor else {})
            response = self.send("GET", path, params=params)
            page = Page[kind].model_validate_json(response.content)  # type: ignore[valid-type]
            yield from page.items
            if (cursor := page.next) is None:
                return

    def send_in_pieces(self, paths: Sequence[Path]) -> list[UUID]:
        """Send files in pieces, and return the ids of their uploads."""
        ids = []
        for path in paths:
            try:
                ids.append(send_file(self._http, path, patience_seconds=PATIENCE_SECONDS))
            except PieceRefused as error:
                raise ApiError(f"{path}: {_detail(error.response)}") from error
            except httpx.HTTPError as error:
                raise Unavailable(f"{path}: {self._unreached(error)}") from error
            except OSError as error:
                raise ApiError(f"{path}: {error}") from error
        return ids

    @contextmanager
    def _stream(self, path: str, after: int | None) -> Iterator[httpx.Response]:
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self._http.stream("GET", path, headers=headers, timeout=_STREAM_SECONDS) as response:
            if response.is_client_error:
                response.read()
                raise ApiError(f"GET {path}: {_detail(response)}")
            response.raise_for_status()
            yield response

    def _unreached(self, error: httpx.HTTPError) -> str:
        reason = str(error) or type(error).__name__
        return (
            f"the service at {self._http.base_url} cannot be reached ({reason}): check the "
            "address, and whether the service runs"
        )


def _detail(response: httpx.Response) -> str:
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return f"status {response.status_code}"
    listed = [f"{item.where}: {item.message}" for item in problem.errors]
    if [item.message for item in problem.errors] == [problem.detail]:
        return listed[0]
    return "\n  ".join([problem.detail, *listed])
