"""Finds jobs whose worker is lost, announces waiting jobs again, and deletes what is outdated.

Each API process runs a reconciler. Each of its changes is one conditional UPDATE, so many may run
at once.
"""

import logging
import threading
from time import monotonic
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.database import Database, now_plus
from app.jobs import retention, transitions
from app.jobs.queue import JobQueue
from app.settings import Settings
from app.storage import Storage
from app.tables import WAITING, IdempotencyKey, Job, JobState

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 60.0
_BATCH = 100
_KEYS_KEPT_SECONDS = 24 * 3600.0
_FOLDERS_EVERY_SECONDS = 3600.0


class Reconciler:
    """Runs a thread that looks at the table of jobs every ``reconcile_seconds``."""

    def __init__(
        self, database: Database, storage: Storage, queue: JobQueue, settings: Settings
    ) -> None:
        self._database = database
        self._storage = storage
        self._queue = queue
        self._settings = settings
        self._next_folders = monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def reconcile(self) -> None:
        """Do one round: lost jobs, hopeless jobs, announcements, files and old rows."""
        with self._database.session() as session:
            lost = transitions.expire(session)
            session.commit()
            transitions.give_up_dependents(session)
            self._forget(session)
            due = self._due(session)
            session.commit()
        for job_id, lane in due:
            self._queue.announce(job_id, lane)
        for changed in lost:
            lease = changed.lease
            logger.warning("job_lost job=%s", lease.job_id)
            self._storage.remove(self._storage.attempt(lease.job_id, lease.attempt))
        self._tidy()
        if monotonic() >= self._next_folders:  # seldom: this looks into the folder of each job
            self._next_folders = monotonic() + _FOLDERS_EVERY_SECONDS
            days = self._settings.failed_checkpoint_days
            retention.drop_saved(self._database, self._storage, days)
            self._storage.sweep()

    def _tidy(self) -> None:
        """Remove the files that an ended job needs no more, where its worker did not do so."""
        with self._database.reading() as session:
            untidy = transitions.untidy(session)
        for job in untidy:
            lease, succeeded = job.lease, job.state == JobState.SUCCEEDED
            saved = job.state == JobState.FAILED  # a retry goes on from the saved state
            self._storage.tidy(lease.job_id, lease.attempt, succeeded=succeeded, saved=saved)
            with self._database.session() as session:
                transitions.release(session, lease)
                session.commit()

    def _run(self) -> None:
        while not self._stop.wait(self._settings.reconcile_seconds):
            try:
                self.reconcile()
            except (SQLAlchemyError, OSError) as error:
                # The database or the disk may be away for a while; the next round tries again.
                logger.warning("reconcile_failed error=%s", error)

    def _due(self, session: Session) -> list[tuple[UUID, str]]:
        """Return the jobs to announce again, with their lanes.

        The pause before the next announcement of a job doubles, so that a long queue causes few
        messages.
        """
        query = (
            select(Job.id, Job.lane, Job.announcements)
            .where(transitions.claimable(), Job.announce_at <= now_plus())
            .order_by(Job.priority.desc(), Job.created_at)
            .limit(_BATCH)
        )
        due: list[tuple[UUID, str]] = []
        for job_id, lane, announcements in session.execute(query).all():
            pause = self._settings.announce_again_seconds * 2 ** min(announcements, 10)
            statement = (
                update(Job)
                .where(Job.id == job_id, Job.announcements == announcements)
                .where(Job.state.in_(WAITING))
                .values(
                    announcements=announcements + 1,
                    announce_at=now_plus(min(pause, _LONGEST_PAUSE_SECONDS)),
                )
                .returning(Job.id)
            )
            due += [(job_id, lane) for _ in session.scalars(statement)]
        return due

    def _forget(self, session: Session) -> None:
        """Delete idempotency keys after a day, and the history of jobs that ended long ago."""
        old = IdempotencyKey.created_at < retention.ago(_KEYS_KEPT_SECONDS)
        session.execute(delete(IdempotencyKey).where(old))
        if self._settings.metrics_days is not None:
            retention.forget_history(session, self._settings.metrics_days)
