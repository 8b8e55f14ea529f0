"""Shows, stops and continues jobs. ``submission.py`` makes them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.database import only_read
from app.errors import Conflict, NotFound
from app.http.pagination import Page, newest_first
from app.jobs import curves, orders, verdicts
from app.jobs.logs import newest_log, read_tail
from app.jobs.queue import JobQueue
from app.jobs.reading import read_jobs
from app.jobs.result import CELL
from app.jobs.schemas import JobRead, MetricsRead
from app.jobs.verdicts import VerdictRead
from app.storage import Storage
from app.tables import (
    WAITING,
    Job,
    JobKind,
    JobState,
)
from models.config.versions import ConfigUnusable


def list_jobs(
    session: Session,
    limit: int,
    cursor: str | None,
    *,
    state: JobState | None = None,
    parent: UUID | None = None,
) -> Page[JobRead]:
    """Return a page of jobs, newest first."""
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
    """Return the series of a job that are asked for, each with no more points than asked for."""
    _row(session, job_id)
    series = [
        curves.read(session, job_id, stage, name, asked)
        for stage, name in curves.names(session, job_id)
        if asked.stage in (None, stage) and asked.name in (None, name)
    ]
    return MetricsRead(series=series)


def verdict(session: Session, job_id: UUID) -> VerdictRead:
    """Return what the target's labels say of the models of a job."""
    return verdicts.read(session, _row(session, job_id))


def log(
    session: Session, storage: Storage, job_id: UUID, attempt: int | None, tail_bytes: int
) -> str:
    """Return the end of the log of an attempt; without ``attempt``, of the last that has a log."""
    attempts = _row(session, job_id).attempt
    if attempt is None:
        path = newest_log(storage, job_id, attempts)
    else:
        path = storage.log(job_id, attempt) if attempt <= attempts else None
    tail = None if path is None else read_tail(path, tail_bytes)
    if tail is None:
        which = "no log yet" if attempt is None else f"no log of attempt {attempt}"
        raise NotFound(
            f"job {job_id} has {which}: it has made {attempts} attempt(s) so far, so ask again "
            "when a worker has taken it"
        )
    return tail.decode(errors="replace")


def picture(session: Session, storage: Storage, job_id: UUID, name: str) -> Path:
    """Return the path of a picture."""
    _row(session, job_id)
    path = storage.pictures(job_id) / name
    if not path.is_file():
        raise NotFound(
            f"job {job_id} has no picture {name}: its events of the kind picture name all pictures"
        )
    return path


def cancel(session: Session, job_id: UUID) -> JobRead:
    """Cancel a waiting job at once; ask the worker of a running one to stop."""
    return _changed(session, job_id, _also_parts(session, job_id, orders.cancel), "cancelled")


def pause(session: Session, job_id: UUID) -> JobRead:
    """Pause a waiting job at once; ask the worker of a running one to save and stop."""
    return _changed(session, job_id, _also_parts(session, job_id, orders.pause), "paused")


def resume(session: Session, queue: JobQueue, job_id: UUID) -> JobRead:
    """Queue a paused job, or an interrupted job before its pause has passed."""
    _check_usable(session, job_id)
    job = _changed(session, job_id, _also_parts(session, job_id, orders.resume), "resumed")
    _announce(session, queue, job_id)
    return job


def retry(session: Session, queue: JobQueue, job_id: UUID) -> JobRead:
    """Queue a failed job again; it goes on from the last state that was saved."""
    _check_usable(session, job_id)
    changed = orders.retry(session, job_id)
    if changed:
        # The parts change in the same transaction. Otherwise the reconciler could fail parts that
        # wait for a part which has failed and is not queued again yet.
        for part in _parts(session, job_id):
            orders.retry(session, part)
    job = _changed(session, job_id, changed, "retried")
    _announce(session, queue, job_id)
    return job


def set_priority(session: Session, job_id: UUID, priority: int) -> JobRead:
    """Change the place of a job among those that wait."""
    changed = _also_parts(
        session, job_id, lambda session, job: orders.set_priority(session, job, priority)
    )
    return _changed(session, job_id, changed, "given another priority")


def cell(session: Session, storage: Storage, job_id: UUID) -> Path:
    """Return the path of the results of a benchmark's part."""
    job = _row(session, job_id)
    if job.parent_id is None:
        raise NotFound(f"job {job_id} is no part of a benchmark: GET /jobs?parent=ID lists parts")
    if job.state != JobState.SUCCEEDED:
        raise Conflict(f"job {job_id} is {job.state}: ask again when it has succeeded")
    path = storage.attempt(job_id, job.attempt) / CELL
    if not path.is_file():
        raise NotFound(f"job {job_id} was run by an earlier version, which kept no such file")
    return path


_EARLIER_NAMES = {"folds.json": "splits.json"}
"""Names that files of reports had in version 0.1.0."""


def report(session: Session, storage: Storage, job_id: UUID, name: str) -> Path:
    """Return the path of a file of a benchmark's report."""
    job = _row(session, job_id)
    if job.kind != JobKind.BENCHMARK:
        raise NotFound(
            f"job {job_id} is of kind {job.kind} and has no report: name a job of kind benchmark"
        )
    path = storage.attempt(job_id, job.attempt) / "report" / name
    if name in _EARLIER_NAMES and not path.is_file():
        path = path.with_name(_EARLIER_NAMES[name])
    if job.state != JobState.SUCCEEDED:
        raise Conflict(
            f"job {job_id} is {job.state}: a report is written when its job succeeds, so ask again "
            "then"
        )
    if not path.is_file():
        raise NotFound(f"the report of job {job_id} has no file {name}: report.html shows it all")
    return path


def _also_parts(session: Session, job_id: UUID, change: Callable[[Session, UUID], bool]) -> bool:
    """Change a job and the parts of a benchmark, where the state allows it; True if one changed."""
    changed = [change(session, one) for one in (job_id, *_parts(session, job_id))]
    return any(changed)


def _announce(session: Session, queue: JobQueue, job_id: UUID) -> None:
    """Announce once in each lane in which the job or a part of it waits.

    One message a lane is enough, because workers look for more jobs by themselves.
    """
    query = select(Job.lane, Job.id).where(
        or_(Job.id == job_id, Job.parent_id == job_id), Job.state.in_(WAITING)
    )
    waiting = {lane: waits for lane, waits in session.execute(query)}  # noqa: C416 - rows, no pairs
    for lane, waits in waiting.items():
        queue.announce(waits, lane)


def _parts(session: Session, job_id: UUID) -> Sequence[UUID]:
    return session.scalars(select(Job.id).where(Job.parent_id == job_id)).all()


_ALLOWED = {
    "cancelled": "a job that has not ended",
    "paused": "a waiting or running job",
    "resumed": "a paused or interrupted job",
    "retried": "a failed job",
    "given another priority": "a job that has not ended",
}
"""The jobs with which each change is possible."""


def _changed(session: Session, job_id: UUID, changed: bool, words: str) -> JobRead:
    """Commit a change of state and return the job; Conflict if its state does not allow it."""
    session.commit()
    only_read(session)
    if not changed:
        state = _row(session, job_id).state
        raise Conflict(f"job {job_id} is {state} and cannot be {words}: only {_ALLOWED[words]} can")
    return get(session, job_id)


def _check_usable(session: Session, job_id: UUID) -> None:
    """Refuse to continue a job if this version cannot use its stored configuration."""
    try:
        _row(session, job_id).usable_config()
    except ConfigUnusable as error:
        raise Conflict(f"job {job_id} cannot go on: {error}; submit it again") from error


def _row(session: Session, job_id: UUID) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id}: GET /jobs lists all jobs")
    return job
