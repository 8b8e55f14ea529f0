"""Rows as a worker leaves them."""

from pathlib import Path
from typing import Any
from uuid import UUID

from app.database import Database, now_plus
from app.jobs.orders import submitted
from app.tables import Dataset, Job, JobKind, JobState, ModelKind, TrainedModel
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig

SMOKE = preset("smoke")


def add_job(database: Database, source: str, target: str | None = None, **columns: Any) -> UUID:
    """A job row; by default a finished adaptation with the smoke preset."""
    values = {
        "kind": JobKind.ADAPT,
        "state": JobState.SUCCEEDED,
        "config": SMOKE.model_dump(mode="json"),
        "announce_at": now_plus(3600),
        "lease_until": now_plus(3600),
    } | columns
    with database.session() as session:
        job = Job(source_id=UUID(source), target_id=None if target is None else UUID(target))
        for name, value in values.items():
            setattr(job, name, value)
        session.add(job)
        session.commit()
        return job.id


def add_waiting(database: Database, **columns: Any) -> UUID:
    """A job that waits for a worker, of no dataset, as its submission leaves it."""
    values = {"announce_at": now_plus(3600)} | columns
    with database.session() as session:
        job = Job(kind=JobKind.ADAPT, config=SMOKE.model_dump(mode="json"), **values)
        session.add(job)
        session.flush()
        submitted(session, job)
        session.commit()
        return job.id


def add_model(database: Database, job: UUID, source: str, **columns: Any) -> UUID:
    """A row of a trained model; by default a segmenter of two classes."""
    values = {
        "kind": ModelKind.SEGMENTER,
        "path": str(Path("jobs") / str(job) / "1" / "segmenter"),
        "class_names": ["background", "organelle"],
        "config": SMOKE.model_dump(mode="json"),
        "metrics": {"dice/mean": 0.5},
    } | columns
    with database.session() as session:
        source_nm = session.get_one(Dataset, UUID(source)).pixel_size_nm
        config = StyleFilterConfig.model_validate(values["config"])
        model = TrainedModel(job_id=job, source_id=UUID(source))
        model.working_nm = config.working_nm(source_nm)
        for name, value in values.items():
            setattr(model, name, value)
        session.add(model)
        session.commit()
        return model.id


def config_with(**stages: dict[str, Any] | float) -> dict[str, Any]:
    """The smoke preset with some fields replaced, as stored."""
    return SMOKE.changed(stages).model_dump(mode="json")
