"""Register trained models when a job ends, and find them by their fingerprint."""

import logging
from pathlib import Path
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs.result import ReusedModel
from app.storage import Storage
from app.tables import ADAPTED, Dataset, Job, ModelKind, TrainedModel
from worker.outcome import Outcome

logger = logging.getLogger(__name__)


def register(session: Session, storage: Storage, job: Job, outcome: Outcome) -> None:
    """Add a row for each new model of a job."""
    assert job.source_id is not None or not outcome.models
    ids = outcome.reused | {model.kind: uuid4() for model in outcome.models}
    for model in outcome.models:
        source = session.get_one(Dataset, job.source_id)
        adapted = model.kind in ADAPTED
        style_id = ids.get(ModelKind.STYLE, job.style_model_id)
        segmenter_id = ids.get(ModelKind.SEGMENTER, job.segmenter_model_id)
        row = TrainedModel(
            id=ids[model.kind],
            kind=model.kind,
            job_id=job.id,
            source_id=job.target_id if model.of_target else job.source_id,
            target_id=None if model.kind == ModelKind.SEGMENTER else job.target_id,
            style_model_id=style_id if adapted else None,
            segmenter_model_id=segmenter_id if adapted else None,
            path=storage.relative(model.folder),
            class_names=source.class_names,
            config=model.config.model_dump(mode="json"),
            working_nm=model.config.working_nm(source.pixel_size_nm),
            metrics=dict(model.metrics),
            fingerprint=model.fingerprint,
        )
        session.add(row)
        session.flush()  # an adapted model refers to the rows before it


def find_reusable(
    session: Session, storage: Storage, job: Job, kind: ModelKind, fingerprint: str
) -> tuple[ReusedModel, Path] | None:
    """Return the first model of this fingerprint whose files are there, and its folder.

    Later models never take its place, so all jobs of a benchmark start from the same one. A job
    that may not reuse models still reuses those of its own benchmark.
    """
    query = (
        select(TrainedModel)
        .where(TrainedModel.kind == kind, TrainedModel.fingerprint == fingerprint)
        .order_by(TrainedModel.created_at, TrainedModel.id)
    )
    if not job.reuse:
        own = select(Job.id).where(Job.parent_id.is_not(None), Job.parent_id == job.parent_id)
        query = query.where(TrainedModel.job_id.in_(own))
    for model in session.scalars(query):
        folder = storage.model(model.path)
        if folder.is_dir():
            logger.info("stage_reused kind=%s model=%s", kind, model.id)
            return ReusedModel(kind=kind, model=model.id, job=model.job_id), folder
    return None
