"""Makes the answers about jobs from their rows."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from app.columns import stored_object
from app.jobs.result import ReusedModel
from app.jobs.schemas import JobError, JobRead, PartsRead, PublicationRead, StageRead
from app.tables import (
    ENDED,
    Job,
    JobDependency,
    JobKind,
    JobStage,
    JobState,
    Lane,
    ModelKind,
    Publication,
    TrainedModel,
)
from models.table1.plan import BenchmarkPart


@dataclass(frozen=True)
class _Beside:
    """The parts of the answer about a job that other rows than its own hold."""

    stages: list[StageRead]
    models: list[UUID]
    after: list[UUID]
    parts: PartsRead | None
    published: PublicationRead | None


_REUSED = TypeAdapter(list[ReusedModel])


def read_jobs(session: Session, jobs: Sequence[Job]) -> list[JobRead]:
    """Return the answers about some jobs in their order, with a few queries for all of them."""
    ids = [job.id for job in jobs]
    stages: dict[UUID, list[StageRead]] = {job_id: [] for job_id in ids}
    query = select(JobStage).where(JobStage.job_id.in_(ids)).order_by(JobStage.position)
    for stage in session.scalars(query):
        stages[stage.job_id].append(StageRead.model_validate(stage))
    made: dict[UUID, dict[UUID, str]] = {job_id: {} for job_id in ids}
    models = select(TrainedModel.job_id, TrainedModel.id, TrainedModel.kind)
    for job_id, model_id, kind in session.execute(models.where(TrainedModel.job_id.in_(ids))):
        made[job_id][model_id] = kind
    after: dict[UUID, list[UUID]] = {job_id: [] for job_id in ids}
    needs = select(JobDependency.job_id, JobDependency.needs_id)
    for job_id, needs_id in session.execute(needs.where(JobDependency.job_id.in_(ids))):
        after[job_id].append(needs_id)
    of_these = select(Publication).where(Publication.job_id.in_(ids))
    published = {
        each.job_id: PublicationRead.model_validate(each) for each in session.scalars(of_these)
    }
    parts = count_parts(session, [job.id for job in jobs if job.kind == JobKind.BENCHMARK])
    return [
        _job(
            job,
            _Beside(
                stages=stages[job.id],
                models=_in_order(made[job.id] | _reused(job)),
                after=after[job.id],
                parts=parts.get(job.id),
                published=published.get(job.id),
            ),
        )
        for job in jobs
    ]


def count_parts(session: Session, benchmarks: Collection[UUID]) -> dict[UUID, PartsRead]:
    """Count the parts of each benchmark, and those that have ended."""
    if not benchmarks:
        return {}
    ended = func.sum(case((Job.state.in_(ENDED), 1), else_=0))
    query = select(Job.parent_id, ended, func.count()).group_by(Job.parent_id)
    return {
        benchmark: PartsRead(ended=done, total=total)
        for benchmark, done, total in session.execute(query.where(Job.parent_id.in_(benchmarks)))
    }


def _reused(job: Job) -> dict[UUID, str]:
    """Return the models that a job took over, and their kinds; none if its result tells none."""
    try:
        reused = _REUSED.validate_python(stored_object(job.result).get("reused", []))
    except ValidationError:
        return {}
    return {model.model: model.kind for model in reused}


def _in_order(models: dict[UUID, str]) -> list[UUID]:
    """Return models in the order in which a job trains their kinds."""
    kinds = list(ModelKind)  # times are no order: SQLite's clock ticks in milliseconds
    return sorted(models, key=lambda model: kinds.index(ModelKind(models[model])))


def _part(job: Job) -> str | None:
    """Return the title of a benchmark part; None if this version cannot read its plan."""
    if job.parent_id is None:
        return None
    try:
        return BenchmarkPart.model_validate(job.plan).title
    except ValidationError:
        return None


def _job(job: Job, beside: _Beside) -> JobRead:
    error = None
    if job.error_code is not None:
        error = JobError(
            code=job.error_code,
            message=job.error_message or "",
            traceback=job.error_traceback,
        )
    return JobRead(
        id=job.id,
        kind=JobKind(job.kind),
        state=JobState(job.state),
        lane=Lane(job.lane),
        parent=job.parent_id,
        part=_part(job),
        parts=beside.parts,
        priority=job.priority,
        after=beside.after,
        attempt=job.attempt,
        lost_attempts=job.lost_attempts,
        max_attempts=job.max_attempts,
        not_before=job.not_before,
        stage=job.stage,
        step=job.step,
        total=job.total,
        steps_per_second=job.steps_per_second,
        eta_seconds=job.eta_seconds,
        stages=beside.stages,
        error=error,
        source=job.source_id,
        target=job.target_id,
        models=beside.models,
        result=job.result,
        published=beside.published,
        config=job.config,
        config_version=job.config_version,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
