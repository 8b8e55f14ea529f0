"""Use cases of jobs that exist: look at, stop, go on. Submitting is in ``submission.py``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.database import only_read
from app.errors import Conflict, NotFound
from app.jobs import curves, transitions
from app.jobs.logs import newest_log, read_tail
from app.jobs.queue import JobQueue
from app.jobs.reading import read_jobs
from app.jobs.schemas import JobRead, MetricsRead
from app.pagination import Page, newest_first
from app.storage import Storage
from app.tables import (
    WAITING,
    Job,
    JobKind,
    JobState,
)
from models.config_versions import ConfigUnusable


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
    return Page(items=read_jobs(session, rows), next=following)


def get(session: Session, job_id: UUID) -> JobRead:
    return read_jobs(session, [_row(session, job_id)])[0]


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
