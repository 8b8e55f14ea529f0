"""Parameters that routes of several packages take: services, sessions, ids and pages."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Concatenate, ParamSpec, Self, TypeVar, cast
from uuid import UUID

from fastapi import Depends, Path, Query, Request
from sqlalchemy.orm import Session

from app.database import Database
from app.http.heavy_work import HeavyWork, Places, Turns
from app.settings import Settings
from app.storage import Storage

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

THREADS = 24
"""The threads of an API process in which routes run that are no heavy work."""

_READS, _WRITES = 16, 8  # SQLite has one writer: the others would only hold threads while they wait
_OTHER_CONNECTIONS = 8  # of event streams, reconciler, webhooks and GET /readyz
_UPLOADS = 8
_READING_THREADS, _READING_QUEUE = 1, 32  # Python parses in one thread at a time


@dataclass(frozen=True)
class Services:
    """Holds the objects that live as long as the application and that routes of any kind need."""

    settings: Settings
    database: Database
    storage: Storage
    heavy: HeavyWork
    """Decodes, checks and draws images, and writes many labels."""
    reading: HeavyWork
    """Reads large bodies of JSON."""
    uploads: Places
    """Large bodies that are being received: files, and labels with the writing of them."""
    reads: Turns
    """Requests that hold a connection to the database to read."""
    writes: Turns
    """Requests that hold a connection to the database to write."""

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open database and storage, inside of the event loop that answers requests."""
        # No fewer than there are threads and requests that may hold one at the same time.
        connections = THREADS + _READS + _WRITES + settings.heavy_threads + _OTHER_CONNECTIONS
        return cls(
            settings,
            Database(settings.database, connections),
            Storage(settings.data_folder),
            heavy=HeavyWork(settings.heavy_threads, settings.heavy_queue),
            reading=HeavyWork(_READING_THREADS, _READING_QUEUE),
            uploads=Places(_UPLOADS),
            reads=Turns(_READS),
            writes=Turns(_WRITES),
        )

    async def read_heavily(
        self,
        function: Callable[Concatenate[Session, Parameters], Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Call a slow function with a session that only reads, as heavy work.

        The function closes the session as soon as it needs it no more.
        """

        def call() -> Result:
            with self.database.reading() as session:
                return function(session, *args, **kwargs)

        return await self.heavy.run(call)


def get_services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_write_turn(services: ServicesDep) -> AsyncIterator[None]:
    async with services.writes.one():
        yield


async def get_read_turn(services: ServicesDep) -> AsyncIterator[None]:
    async with services.reads.one():
        yield


# The scope ends a dependency before the answer is sent. Otherwise a client that reads slowly would
# hold a connection to the database.
WriteTurn = Annotated[None, Depends(get_write_turn, scope="function")]
ReadTurn = Annotated[None, Depends(get_read_turn, scope="function")]


def get_session(services: ServicesDep, _turn: WriteTurn) -> Iterator[Session]:
    with services.database.session() as session:
        yield session


def get_reading(services: ServicesDep, _turn: ReadTurn) -> Iterator[Session]:
    with services.database.reading() as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session, scope="function")]
"""A session that may write; the service function commits."""

ReadingDep = Annotated[Session, Depends(get_reading, scope="function")]
"""A session that only reads."""


def address(request: Request, path: str) -> str:
    """Return the path under which a client reaches a route, with the prefix of a proxy."""
    prefix: str = request.scope.get("root_path", "")
    return f"{prefix.rstrip('/')}{path}"


DatasetId = Annotated[UUID, Path(description="The id of the dataset.")]

LimitQuery = Annotated[
    int, Query(ge=1, le=1000, description="The largest number of items in the answer.")
]
CursorQuery = Annotated[
    str | None,
    Query(
        max_length=100,
        description="The place at which the answer begins: the value of `next` in the answer "
        "before. Without it the answer begins at the start of the list.",
    ),
]
