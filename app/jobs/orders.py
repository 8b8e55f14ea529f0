"""Changes the states of jobs as their users ask: submitted, cancelled, paused, resumed, retried.

``transitions`` draws the states. Each function is one conditional UPDATE and one event, and leaves
the commit to its caller. False says that the job's state does not allow the change.
"""

from uuid import UUID

from sqlalchemy import case, update
from sqlalchemy.orm import Session

from app.database import now_plus
from app.jobs.transitions import NO_ERROR, change, finished_if, record, tell
from app.tables import ACTIVE, UNFINISHED, WAITING, Job, JobState


def cancel(session: Session, job_id: UUID) -> bool:
    """Cancel a waiting or paused job at once; ask the worker of a running job to stop."""
    held = Job.state.in_(ACTIVE)
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state.in_(UNFINISHED))
        .values(
            state=case((held, JobState.CANCELLING.value), else_=JobState.CANCELLED.value),
            announce_at=None,
            finished_at=finished_if(~held),
            # After this lease the reconciler removes the files that earlier attempts saved.
            lease_until=case((held, Job.lease_until), else_=now_plus()),
        )
    )
    return bool(change(session, statement))


def pause(session: Session, job_id: UUID) -> bool:
    """Pause a waiting job at once; ask the worker of a running job to save its state and stop."""
    running = Job.state == JobState.RUNNING
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state.in_((*WAITING, JobState.RUNNING)))
        .values(
            state=case((running, JobState.PAUSING.value), else_=JobState.PAUSED.value),
            announce_at=None,
            not_before=None,
        )
    )
    return bool(change(session, statement))


def resume(session: Session, job_id: UUID) -> bool:
    """Queue a paused or interrupted job at once; let a job that is still pausing run on."""
    pausing = Job.state == JobState.PAUSING
    stopped = (JobState.PAUSED, JobState.PAUSING, JobState.INTERRUPTED)
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state.in_(stopped))
        .values(
            state=case((pausing, JobState.RUNNING.value), else_=JobState.QUEUED.value),
            announcements=0,
            announce_at=case((~pausing, now_plus())),
            not_before=None,
        )
    )
    return bool(change(session, statement))


def retry(session: Session, job_id: UUID) -> bool:
    """Queue a failed job again. It goes on from its saved state, and may lose attempts anew."""
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.FAILED)
        .values(
            state=JobState.QUEUED,
            lost_attempts=0,
            announcements=0,
            announce_at=now_plus(),
            finished_at=None,
            forgotten_at=None,
            lease_owner=None,
            lease_until=None,
            **NO_ERROR,
        )
    )
    return bool(change(session, statement))


def set_priority(session: Session, job_id: UUID, priority: int) -> bool:
    """Change the priority of a job that has not ended; it counts when the job waits again."""
    statement = update(Job).where(Job.id == job_id, Job.state.in_(UNFINISHED))
    changed = session.scalar(statement.values(priority=priority).returning(Job.id))
    if changed is not None:
        record(session, job_id, "priority", {"priority": priority})
    return changed is not None


def submitted(session: Session, job: Job) -> None:
    """Record the first state of a job that was just stored."""
    tell(session, job.id, job.webhook_url, {"state": JobState.QUEUED.value, "attempt": 0})
