"""What routes ask for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Path, Query, Request
from sqlalchemy.orm import Session

from app.database import Database
from app.settings import Settings
from app.storage import Storage


@dataclass(frozen=True)
class Services:
    """What lives as long as the application, and what routes of every kind need."""

    settings: Settings
    database: Database
    storage: Storage


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
"""May write; the service function commits. House rule: never in this dependency."""

ReadingDep = Annotated[Session, Depends(get_reading)]
"""Only reads."""

DatasetId = Annotated[UUID, Path(description="The id of the dataset.")]
LimitQuery = Annotated[int, Query(ge=1, le=1000, description="The most items of one answer.")]
CursorQuery = Annotated[
    str | None,
    Query(
        max_length=100,
        description="`next` of the answer before, to go on where that one ended; without it the "
        "list begins at its start.",
    ),
]
