"""Claiming a job, keeping it, and giving it back: conditional UPDATEs that carry the fence.

The fence rises with each claim. A write with an old fence changes no row, so a worker that slept
through its lease learns at its first write that the job is no longer its own.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from app.database import Database, now_plus
from app.tables import ACTIVE, Job, JobState


@dataclass(frozen=True)
class Lease:
    """The right to write one attempt of a job."""

    job_id: UUID
    fence: int


def claim(database: Database, job_id: UUID, owner: str, seconds: float) -> Lease | None:
    """Take a queued job; None if it is not queued (a repeated or late message)."""
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.QUEUED)
        .values(
            state=JobState.RUNNING,
            fence=Job.fence + 1,
            lease_owner=owner,
            lease_until=now_plus(seconds),
            started_at=func.coalesce(Job.started_at, now_plus()),
            announce_at=None,
        )
        .returning(Job.fence)
    )
    with database.session() as session:
        fence = session.execute(statement).scalar()
        session.commit()
    return None if fence is None else Lease(job_id, fence)


def renew(database: Database, lease: Lease, seconds: float) -> JobState | None:
    """Extend the lease and return the job's state; None if the job is no longer ours."""
    with database.session() as session:
        state = write(session, lease, lease_until=now_plus(seconds))
        session.commit()
    return state


def write(session: Session, lease: Lease, **values: Any) -> JobState | None:
    """Change columns of the job while it is ours; its state, or None if it is no longer ours."""
    statement = (
        update(Job)
        .where(Job.id == lease.job_id, Job.fence == lease.fence, Job.state.in_(ACTIVE))
        .values(**values)
        .returning(Job.state)
    )
    state = session.execute(statement).scalar()
    return None if state is None else JobState(state)


def finish(session: Session, lease: Lease, state: JobState, **values: Any) -> bool:
    """End the attempt, once; False if it is no longer ours. The caller commits."""
    ended = write(
        session,
        lease,
        state=state,
        finished_at=now_plus(),
        lease_owner=None,
        lease_until=None,
        steps_per_second=None,
        **values,
    )
    return ended is not None


def give_back(session: Session, lease: Lease) -> bool:
    """Queue the job again, to be resumed; False if it is no longer ours. The caller commits."""
    statement = (
        update(Job)
        .where(Job.id == lease.job_id, Job.fence == lease.fence)
        .where(Job.state == JobState.RUNNING)
        .values(
            state=JobState.QUEUED,
            lease_owner=None,
            lease_until=None,
            steps_per_second=None,
            announcements=0,
            announce_at=now_plus(),
        )
        .returning(Job.id)
    )
    return session.execute(statement).scalar() is not None
