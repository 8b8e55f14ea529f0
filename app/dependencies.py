"""Parameters that routes of several packages take: services, sessions, ids and pages."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Path, Query, Request
from sqlalchemy.orm import Session

from app.database import Database
from app.heavy_work import HeavyWork
from app.settings import Settings
from app.storage import Storage


@dataclass(frozen=True)
class Services:
    """Holds the objects that live as long as the application and that routes of any kind need."""

    settings: Settings
    database: Database
    storage: Storage
    heavy: HeavyWork
    """Decodes, checks and draws images, and writes long tables of labels."""
    reading: HeavyWork
    """Reads large bodies of JSON."""


def get_services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(get_services)]


def get_session(services: ServicesDep) -> Iterator[Session]:
    with services.database.session() as session:
        yield session


def get_reading(services: ServicesDep) -> Iterator[Session]:
    with services.database.reading() as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]
"""A session that may write. The service function commits, because FastAPI runs the end of a
dependency after it has sent the answer: a client would hold a 201 for a row that is not there yet.
"""

ReadingDep = Annotated[Session, Depends(get_reading)]
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
