"""Lists and shows trained models."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.http.pagination import Page, newest_first
from app.registry.schemas import ModelRead
from app.tables import ModelKind, TrainedModel


def get(session: Session, model_id: UUID) -> TrainedModel:
    model = session.get(TrainedModel, model_id)
    if model is None:
        raise NotFound(f"there is no model {model_id}: GET /models lists all models")
    return model


def list_models(
    session: Session, limit: int, cursor: str | None, kind: ModelKind | None
) -> Page[ModelRead]:
    """Return a page of the trained models, newest first."""
    query = select(TrainedModel)
    if kind is not None:
        query = query.where(TrainedModel.kind == kind)
    rows, following = newest_first(session, query, limit, cursor)
    return Page(items=[read(row) for row in rows], next=following)


def read(model: TrainedModel) -> ModelRead:
    return ModelRead(
        id=model.id,
        kind=ModelKind(model.kind),
        job=model.job_id,
        source=model.source_id,
        target=model.target_id,
        style_model=model.style_model_id,
        segmenter_model=model.segmenter_model_id,
        class_names=list(model.class_names),
        config=model.config,
        config_version=model.config_version,
        metrics=model.metrics,
        working_nm=model.working_nm,
        created_at=model.created_at,
    )
