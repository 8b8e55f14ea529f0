"""Use cases of jobs that exist: look at, stop, go on. Submitting is in ``submission.py``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import case, func, or_, select
from sqlalchemy.orm import Session

from app.database import only_read
from app.errors import Conflict, NotFound
from app.jobs import curves, transitions
from app.jobs.logs import newest_log, read_tail
from app.jobs.queue import JobQueue
from app.jobs.result import ReusedModel
from app.jobs.schemas import JobError, JobRead, MetricsRead, StageRead
from app.pagination import Page, newest_first
from app.storage import Storage
from app.stored import stored_object
from app.tables import (
    ENDED,
    UNFINISHED,
    WAITING,
    Job,
    JobDependency,
    JobKind,
    JobStage,
    JobState,
    Lane,
    TrainedModel,
)
from models.config_versions import ConfigUnusable
from models.table1.plan import BenchmarkPart

_REUSED = TypeAdapter(list[ReusedModel])


def list_jobs(
    session: Session,
    limit: int,
    cursor: str | None,
    *,
    state: JobState | None = None,
    parent: UUID | None = None,
) -> Page[JobRead]:
    """Jobs, newest first."""
    query = select(Job)
    if parent is not None:
        query = query.where(Job.parent_id == parent)
    if state is not None:
        query = query.where(Job.state == state)
    rows, following = newest_first(session, query, limit, cursor)
    return Page(items=_read(session, rows), next=following)


def get(session: Session, job_id: UUID) -> JobRead:
    return _read(session, [_row(session, job_id)])[0]


def metrics(session: Session, job_id: UUID, asked: curves.MetricsQuery) -> MetricsRead:
    """All series of a job, or those of a stage or a name; each with at most so many points."""
    _row(session, job_id)
    series = [
        curves.read(session, job_id, stage, name, asked)
        for stage, name in curves.names(session, job_id)
        if asked.stage in (None, stage) and asked.name in (None, name)
    ]
    return MetricsRead(series=series)


def log(
    session: Session, storage: Storage, job_id: UUID, attempt: int | None, tail_bytes: int
) -> str:
    """The end of the log of an attempt; by default of the last that has one."""
    attempts = _row(session, job_id).attempt
    if attempt is None:
        path = newest_log(storage, job_id, attempts)
    else:
        path = storage.log(job_id, attempt) if attempt <= attempts else None
    tail = None if path is None else read_tail(path, tail_bytes)
    if tail is None:
        which = "an attempt" if attempt is None else f"attempt {attempt}"
        raise NotFound(f"there is no log of {which} of job {job_id}; it is at attempt {attempts}")
    return tail.decode(errors="replace")


def picture(session: Session, storage: Storage, job_id: UUID, name: str) -> Path:
    """The file of a picture."""
    _row(session, job_id)
    path = storage.pictures(job_id) / name
    if not path.is_file():
        raise NotFound(f"job {job_id} has no picture {name}")
    return path


def cancel(session: Session, job_id: UUID) -> JobRead:
    """Cancel a waiting job at once; ask the worker of a running one to stop."""
    return _changed(session, job_id, _also_parts(session, job_id, transitions.cancel), "cancelled")


def pause(session: Session, job_id: UUID) -> JobRead:
    """Pause a waiting job at once; ask the worker of a running one to save and stop."""
    return _changed(session, job_id, _also_parts(session, job_id, transitions.pause), "paused")


def resume(session: Session, queue: JobQueue, job_id: UUID) -> JobRead:
    """Queue a paused job, or one that waits out an interruption."""
    _check_usable(session, job_id)
    job = _changed(session, job_id, _also_parts(session, job_id, transitions.resume), "resumed")
    _announce(session, queue, job_id)
    return job


def retry(session: Session, queue: JobQueue, job_id: UUID) -> JobRead:
    """Queue a failed job again, to go on from what it had saved."""
    _check_usable(session, job_id)
    changed = transitions.retry(session, job_id)
    if changed:
        # In the same transaction: or those that waited for one that failed would be given up again.
        for part in _parts(session, job_id):
            transitions.retry(session, part)
    job = _changed(session, job_id, changed, "retried")
    _announce(session, queue, job_id)
    return job


def set_priority(session: Session, job_id: UUID, priority: int) -> JobRead:
    """Change the place of a job among those that wait."""
    changed = _also_parts(
        session, job_id, lambda session, job: transitions.set_priority(session, job, priority)
    )
    return _changed(session, job_id, changed, "given another priority")


_EARLIER_NAMES = {"folds.json": "splits.json"}
"""Names of files in reports that were written before version 0.2."""


def report(session: Session, storage: Storage, job_id: UUID, name: str) -> Path:
    """Find a file of a benchmark's report."""
    job = _row(session, job_id)
    if job.kind != JobKind.BENCHMARK:
        raise NotFound(f"job {job_id} is of kind {job.kind}: only a benchmark has a report")
    path = storage.attempt(job_id, job.attempt) / "report" / name
    if name in _EARLIER_NAMES and not path.is_file():
        path = path.with_name(_EARLIER_NAMES[name])
    if job.state != JobState.SUCCEEDED:
        raise Conflict(f"job {job_id} is {job.state}: its report is written at its end")
    if not path.is_file():
        raise NotFound(f"the report of job {job_id} has no {name}")
    return path


def _also_parts(session: Session, job_id: UUID, change: Callable[[Session, UUID], bool]) -> bool:
    """Change a job and, of a benchmark, its parts: those whose state allows it."""
    changed = [change(session, one) for one in (job_id, *_parts(session, job_id))]
    return any(changed)


def _announce(session: Session, queue: JobQueue, job_id: UUID) -> None:
    """Ring once in each lane in which the job, or a part of it, waits: workers look for more."""
    query = select(Job.lane, Job.id).where(
        or_(Job.id == job_id, Job.parent_id == job_id), Job.state.in_(WAITING)
    )
    waiting = {lane: waits for lane, waits in session.execute(query)}  # noqa: C416 - rows, no pairs
    for lane, waits in waiting.items():
        queue.announce(waits, lane)


def _parts(session: Session, job_id: UUID) -> Sequence[UUID]:
    return session.scalars(select(Job.id).where(Job.parent_id == job_id)).all()


def _changed(session: Session, job_id: UUID, changed: bool, words: str) -> JobRead:
    """The job after a change of state; Conflict where its state does not allow that."""
    session.commit()
    only_read(session)
    if not changed:
        state = _row(session, job_id).state
        raise Conflict(f"job {job_id} is {state}: it cannot be {words}")
    return get(session, job_id)


def _check_usable(session: Session, job_id: UUID) -> None:
    """Refuse to let a job go on whose configuration its trainer would refuse."""
    try:
        _row(session, job_id).usable_config()
    except ConfigUnusable as error:
        raise Conflict(f"job {job_id} cannot go on: {error}") from error


def _row(session: Session, job_id: UUID) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def _read(session: Session, jobs: Sequence[Job]) -> list[JobRead]:
    ids = [job.id for job in jobs]
    stages: dict[UUID, list[StageRead]] = {job_id: [] for job_id in ids}
    query = select(JobStage).where(JobStage.job_id.in_(ids)).order_by(JobStage.position)
    for stage in session.scalars(query):
        stages[stage.job_id].append(StageRead.model_validate(stage))
    models: dict[UUID, list[UUID]] = {job_id: [] for job_id in ids}
    made = select(TrainedModel.job_id, TrainedModel.id).where(TrainedModel.job_id.in_(ids))
    for job_id, model_id in session.execute(made.order_by(TrainedModel.created_at)):
        models[job_id].append(model_id)
    after: dict[UUID, list[UUID]] = {job_id: [] for job_id in ids}
    needs = select(JobDependency.job_id, JobDependency.needs_id)
    for job_id, needs_id in session.execute(needs.where(JobDependency.job_id.in_(ids))):
        after[job_id].append(needs_id)
    _count_parts(session, jobs)
    for job in jobs:
        models[job.id] += _reused(job)
    return [_job(job, stages[job.id], models[job.id], after[job.id]) for job in jobs]


def _reused(job: Job) -> list[UUID]:
    """Return the models that a job took over, as far as its stored result tells them."""
    try:
        reused = _REUSED.validate_python(stored_object(job.result).get("reused", []))
    except ValidationError:
        return []
    return [model.model for model in reused]


def _part(job: Job) -> str | None:
    """Return the title of a part of a benchmark; None where its plan is not one of today's."""
    if job.parent_id is None:
        return None
    try:
        return BenchmarkPart.model_validate(job.plan).title
    except ValidationError:
        return None


def _count_parts(session: Session, jobs: Sequence[Job]) -> None:
    """Show how many parts of a waiting benchmark have ended, as its step and total."""
    waiting = [job for job in jobs if job.kind == JobKind.BENCHMARK and job.stage is None]
    ended = func.sum(case((Job.state.in_(ENDED), 1), else_=0))
    query = select(Job.parent_id, ended, func.count()).group_by(Job.parent_id)
    counts = {
        parent: (done, total)
        for parent, done, total in session.execute(
            query.where(Job.parent_id.in_([job.id for job in waiting]))
        )
    }
    for job in waiting:
        session.expunge(job)  # what is shown is not what the row says
        job.stage, (job.step, job.total) = "parts", counts.get(job.id, (0, 0))


def _job(job: Job, stages: list[StageRead], models: list[UUID], after: list[UUID]) -> JobRead:
    eta = None
    if job.state in UNFINISHED and job.steps_per_second:
        eta = (job.total - job.step) / job.steps_per_second
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
        priority=job.priority,
        after=after,
        attempt=job.attempt,
        lost_attempts=job.lost_attempts,
        max_attempts=job.max_attempts,
        not_before=job.not_before,
        stage=job.stage,
        step=job.step,
        total=job.total,
        steps_per_second=job.steps_per_second,
        eta_seconds=eta,
        stages=stages,
        error=error,
        source=job.source_id,
        target=job.target_id,
        models=models,
        result=job.result,
        config=job.config,
        config_version=job.config_version,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
