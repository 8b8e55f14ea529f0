"""Trained models over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query

from app.http.dependencies import CursorQuery, LimitQuery, ReadingDep
from app.http.pagination import Page
from app.middleware.error_handlers import NO_DATABASE
from app.middleware.strict_route import StrictRoute
from app.registry import service
from app.registry.schemas import ModelRead
from app.tables import ModelKind

router = APIRouter(
    prefix="/models", tags=["models"], responses=NO_DATABASE, route_class=StrictRoute
)


@router.get("")
def list_models(
    session: ReadingDep,
    kind: Annotated[ModelKind | None, Query(description="Lists only models of this kind.")] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[ModelRead]:
    """List the trained models, newest first."""
    return service.list_models(session, limit, cursor, kind)


@router.get("/{model_id}")
def get_model(
    model_id: Annotated[UUID, Path(description="The id of the model.")], session: ReadingDep
) -> ModelRead:
    """Return a trained model with its job, datasets, configuration and scores."""
    return service.read(service.get(session, model_id))
