"""Changes the states of jobs; each change is one conditional UPDATE and one event.

    queued, interrupted --claim--> running --> succeeded | failed
    running --hand back--> queued            its worker stops; the next attempt goes on
    running --lose--> interrupted | failed   its worker or trainer is lost; failed at the limit
    running --pause--> pausing --> paused    its trainer saves the state and ends first
    running --cancel--> cancelling --> cancelled
    queued, interrupted --pause--> paused --resume--> queued;  failed --retry--> queued
    queued, interrupted, paused --cancel--> cancelled

Users cancel, pause, resume and retry by the functions of ``orders``.

A worker holds a job by a lease, a time until which the job is its own, and renews the lease while
it works. Each claim begins a new attempt, and each write of a worker carries the number of its
attempt. A write with an older number changes no row, so a worker that slept longer than its lease
learns at its first write that the job is no longer its own.

A job that has ended keeps its lease until the files that it needs no more are removed. Its worker
removes them and releases the job. If the worker is lost, the reconciler does so after the lease.

All times are those of the database's clock. Functions that take a session leave the commit to the
caller.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Update, and_, case, exists, func, null, or_, select, update
from sqlalchemy.orm import Session, aliased

from app.database import Database, now_plus
from app.tables import (
    ACTIVE,
    ENDED,
    WAITING,
    Job,
    JobDependency,
    JobEvent,
    JobState,
    Lane,
    WebhookDelivery,
)

_FIRST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 300.0
_DOUBLINGS = 7

DEPENDENCY_FAILED = "dependency_failed"
"""The error code of a job that waited for another job which then failed or was cancelled."""

NO_ERROR: dict[str, Any] = {
    "error_code": None,
    "error_message": None,
    "error_traceback": None,
}


@dataclass(frozen=True)
class Lease:
    """The right of a worker to write one attempt of a job."""

    job_id: UUID
    attempt: int


@dataclass(frozen=True)
class Changed:
    """A job that changed, and its state now."""

    lease: Lease
    state: JobState


@dataclass(frozen=True)
class Failure:
    """The reason why an attempt ended: a stable code, a sentence, and the place in the code."""

    code: str
    message: str
    trace: str | None = None


def claim(
    database: Database, owner: str, seconds: float, lanes: Collection[Lane] = tuple(Lane)
) -> Lease | None:
    """Take the next waiting job in these lanes; return None if no job waits.

    The next job has the highest priority and, among equals, waits longest.
    """
    following = (
        select(Job.id)
        .where(claimable(), Job.lane.in_(lanes))
        .order_by(Job.priority.desc(), Job.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)  # SQLite ignores this: it has one writer at a time
    )
    statement = (
        update(Job)
        .where(Job.id == following.scalar_subquery(), Job.state.in_(WAITING))
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            lease_owner=owner,
            lease_until=now_plus(seconds),
            started_at=func.coalesce(Job.started_at, now_plus()),
            announce_at=None,
            not_before=None,
            **NO_ERROR,
        )
    )
    with database.session() as session:
        changed = change(session, statement, worker=owner)
        session.commit()
    return changed[0].lease if changed else None


def renew(database: Database, lease: Lease, seconds: float) -> JobState | None:
    """Extend the lease and return the job's state; None if the lease is lost."""
    with database.session() as session:
        state = write(session, lease, lease_until=now_plus(seconds))
        session.commit()
    return state


def write(session: Session, lease: Lease, **values: Any) -> JobState | None:
    """Change columns of the job and return its state; change nothing if the lease is lost.

    None says that the lease is lost.
    """
    state = session.scalar(_of(lease).values(**values).returning(Job.state))
    return None if state is None else JobState(state)


def succeed(session: Session, lease: Lease, result: dict[str, Any]) -> bool:
    """End the attempt with a result; return False if the lease is lost."""
    statement = _of(lease).values(
        state=JobState.SUCCEEDED, result=result, finished_at=now_plus(), steps_per_second=None
    )
    return bool(change(session, statement))


def fail(session: Session, lease: Lease, failure: Failure) -> bool:
    """Fail a job for a reason that would stop another attempt too; False if the lease is lost.

    A job in the state ``cancelling`` becomes cancelled instead.
    """
    cancelling = Job.state == JobState.CANCELLING
    statement = _of(lease).values(
        state=case((cancelling, JobState.CANCELLED.value), else_=JobState.FAILED.value),
        error_code=case((cancelling, null()), else_=failure.code),
        error_message=case((cancelling, null()), else_=failure.message),
        error_traceback=case((cancelling, null()), else_=failure.trace),
        finished_at=now_plus(),
        steps_per_second=None,
    )
    return bool(change(session, statement))


def hand_back(session: Session, lease: Lease) -> bool:
    """End the attempt and queue the job again, or pause or cancel it if its user asked for that.

    The next attempt goes on from the last state that was saved.
    """
    statement = _of(lease).values(
        state=_as_asked(JobState.QUEUED),
        announcements=0,
        announce_at=case((Job.state == JobState.RUNNING, now_plus())),
        **_ended_if(Job.state == JobState.CANCELLING),
    )
    return bool(change(session, statement))


def lose(session: Session, lease: Lease, failure: Failure) -> bool:
    """End an attempt whose trainer is lost; another may begin after a pause, up to the limit."""
    return bool(change(session, _lost(_of(lease), failure), code=failure.code))


def expire(session: Session) -> list[Changed]:
    """End all attempts whose lease has run out, and return them."""
    failure = Failure(
        "worker_lost",
        "The worker stopped renewing its lease: it was killed, ran out of memory, or its host is "
        "down.",
    )
    held = update(Job).where(Job.state.in_(ACTIVE), Job.lease_until < now_plus())
    return change(session, _lost(held, failure), code=failure.code)


def untidy(session: Session) -> list[Changed]:
    """Return the jobs that have ended and whose lease ran out before their worker released them."""
    query = select(Job.id, Job.attempt, Job.state).where(
        Job.state.in_(ENDED), Job.lease_until < now_plus()
    )
    return [
        Changed(Lease(i, attempt), JobState(state)) for i, attempt, state in session.execute(query)
    ]


def release(session: Session, lease: Lease) -> None:
    """Release a job that has ended, after the files that it needs no more are removed."""
    statement = update(Job).where(
        Job.id == lease.job_id, Job.attempt == lease.attempt, Job.state.in_(ENDED)
    )
    session.execute(statement.values(lease_owner=None, lease_until=None))


def give_up_dependents(session: Session) -> list[UUID]:
    """Fail the jobs that wait for a job which failed or was cancelled; return their ids."""
    needed, other = aliased(JobDependency), aliased(Job)
    hopeless = exists().where(
        needed.job_id == Job.id,
        other.id == needed.needs_id,
        needed.success,
        other.state.in_((JobState.FAILED, JobState.CANCELLED)),
    )
    waiting = update(Job).where(Job.announce_at.is_not(None), Job.state.in_(WAITING), hopeless)
    statement = waiting.values(
        state=JobState.FAILED,
        finished_at=now_plus(),
        announce_at=None,
        error_code=DEPENDENCY_FAILED,
        error_message="A job that this one waited for failed or was cancelled: retry that job "
        "first, then this one.",
    )
    return [changed.lease.job_id for changed in change(session, statement)]


def record(session: Session, job_id: UUID, kind: str, data: dict[str, Any]) -> int:
    """Store an event of a job and return its id.

    The caller has changed the job's row before: the lock on the row keeps events in their order.
    """
    event = JobEvent(job_id=job_id, kind=kind, data=data)
    session.add(event)
    session.flush()
    return event.id


def tell(session: Session, job_id: UUID, webhook_url: str | None, data: dict[str, Any]) -> None:
    """Store the event of a change of state, and the webhook that is due for it."""
    event_id = record(session, job_id, "state", data)
    if webhook_url is not None:
        session.add(WebhookDelivery(event_id=event_id))


def change(session: Session, statement: Update, **told: Any) -> list[Changed]:
    """Run a change of state, and record an event for each job that changed."""
    columns = (Job.id, Job.attempt, Job.state, Job.error_code, Job.error_message, Job.webhook_url)
    changed = []
    for job_id, attempt, state, code, message, url in session.execute(
        statement.returning(*columns)
    ):
        data: dict[str, Any] = {"state": state, "attempt": attempt, **told}
        if code is not None:
            data |= {"code": code, "message": message}
        tell(session, job_id, url, data)
        changed.append(Changed(Lease(job_id, attempt), JobState(state)))
    return changed


def claimable() -> ColumnElement[bool]:
    """Return the SQL condition that a worker may take a job.

    The job waits, its pause has passed, and it waits for no other job.
    """
    needed, other = aliased(JobDependency), aliased(Job)
    unmet = exists().where(
        needed.job_id == Job.id,
        other.id == needed.needs_id,
        other.state != JobState.SUCCEEDED,
        or_(needed.success, other.state.not_in(ENDED)),
    )
    return and_(
        Job.announce_at.is_not(None),  # the condition of the index ix_jobs_waiting
        # With IN (waiting states) SQLite would sort all waiting jobs instead of using that index.
        Job.state.not_in([state for state in JobState if state not in WAITING]),
        or_(Job.not_before.is_(None), Job.not_before <= now_plus()),
        ~unmet,
    )


def _of(lease: Lease) -> Update:
    return update(Job).where(
        Job.id == lease.job_id, Job.attempt == lease.attempt, Job.state.in_(ACTIVE)
    )


def _as_asked(otherwise: JobState | ColumnElement[str]) -> ColumnElement[str]:
    """Return the SQL for the state that a user asked for while a worker held the job."""
    asked = {
        JobState.CANCELLING.value: JobState.CANCELLED.value,
        JobState.PAUSING.value: JobState.PAUSED.value,
    }
    return case(asked, value=Job.state, else_=otherwise)


def finished_if(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    """Return the SQL for the end of a job: now if the condition holds, else none."""
    return case((condition, now_plus()), else_=null())


def _ended_if(condition: ColumnElement[bool]) -> dict[str, Any]:
    """Return the columns to set when an attempt ends; the lease stays only if the job ends too."""
    return {
        "finished_at": finished_if(condition),
        "lease_owner": case((condition, Job.lease_owner), else_=null()),
        "lease_until": case((condition, Job.lease_until), else_=null()),
        "steps_per_second": None,
    }


def _lost(statement: Update, failure: Failure) -> Update:
    running = Job.state == JobState.RUNNING
    last = running & (Job.lost_attempts + 1 >= Job.max_attempts)
    pauses = [_FIRST_PAUSE_SECONDS * 2**n for n in range(_DOUBLINGS)]
    after_pause = case(
        *(
            (Job.lost_attempts == n, now_plus(min(pause, _LONGEST_PAUSE_SECONDS)))
            for n, pause in enumerate(pauses)
        ),
        else_=now_plus(_LONGEST_PAUSE_SECONDS),
    )
    otherwise = case((last, JobState.FAILED.value), else_=JobState.INTERRUPTED.value)
    waits = case((running & ~last, after_pause), else_=null())
    return statement.values(
        state=_as_asked(otherwise),
        lost_attempts=case((running, Job.lost_attempts + 1), else_=Job.lost_attempts),
        not_before=waits,
        announcements=0,
        announce_at=waits,
        error_code=case((running, failure.code), else_=null()),
        error_message=case((running, failure.message), else_=null()),
        error_traceback=case((running, failure.trace), else_=null()),
        **_ended_if(last | (Job.state == JobState.CANCELLING)),
    )
