"""Deletes the metrics and events of old jobs, and the saved states of failed jobs."""

import logging
from typing import Any
from uuid import UUID

from sqlalchemy import CursorResult, ScalarSelect, delete, select, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.database import Database, now_plus
from app.storage import Storage
from app.tables import UNFINISHED, Job, JobEvent, MetricPoint

logger = logging.getLogger(__name__)

_JOBS_AT_A_TIME = 100
_ROWS_AT_A_TIME = 10_000
_DAY_SECONDS = 24 * 3600.0


def ago(seconds: float) -> ScalarSelect[Any]:
    """Return a past time by the database's clock.

    A statement evaluates this subquery once, so that PostgreSQL can seek the time in an index.
    """
    return select(now_plus(-seconds)).scalar_subquery()


def forget_history(session: Session, days: float) -> None:
    """Delete metrics and events of jobs that ended more than ``days`` ago, the oldest jobs first.

    One call deletes a limited number of rows, so that it is quick; the next call goes on.
    """
    old = (
        select(Job.id)
        .where(Job.finished_at < ago(days * _DAY_SECONDS), Job.forgotten_at.is_(None))
        .order_by(Job.finished_at)
        .limit(_JOBS_AT_A_TIME)
        .with_for_update(skip_locked=True)
    )
    room = _ROWS_AT_A_TIME
    for job_id in session.scalars(old).all():
        room -= _delete(
            session, job_id, (MetricPoint.stage, MetricPoint.name, MetricPoint.step), room
        )
        room -= _delete(session, job_id, (JobEvent.id,), room)
        if room <= 0:
            return
        session.execute(update(Job).where(Job.id == job_id).values(forgotten_at=now_plus()))
        logger.info("history_forgotten job=%s", job_id)


def drop_saved(database: Database, storage: Storage, days: float) -> None:
    """Remove checkpoints and uploads of jobs that ended more than ``days`` ago.

    A job that is retried afterwards begins anew; a registration then asks for its files again.
    """
    for job_id in storage.with_saved():
        with database.session() as session:
            # A retry at this moment waits for the row; it then finds the whole folder or none.
            old = (
                select(Job.id)
                .where(Job.id == job_id, Job.state.not_in(UNFINISHED))
                .where(Job.finished_at < ago(days * _DAY_SECONDS))
                .with_for_update()
            )
            if session.scalar(old) is None:
                continue
            aside = [storage.set_aside(path) for path in storage.saved(job_id)]
            session.commit()
        for path in aside:
            storage.remove(path)
        logger.info("saved_dropped job=%s", job_id)


def _delete(
    session: Session, job_id: UUID, key: tuple[InstrumentedAttribute[Any], ...], most: int
) -> int:
    """Delete up to ``most`` rows of a job, in the order of their key; return their number."""
    table = key[0].class_
    of_job = table.job_id == job_id
    ordered = select(*key).where(of_job).order_by(*key)
    rest = session.execute(ordered.offset(most).limit(1)).first()
    first = of_job if rest is None else of_job & (tuple_(*key) < tuple_(*rest))
    statement = delete(table).where(first).execution_options(synchronize_session=False)
    result = session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount
