"""Keeps rows and reality together: announces queued jobs again, ends jobs whose worker is lost.

Runs in every API process; each change is one conditional UPDATE, so many may run at once.
"""

import logging
import threading
from uuid import UUID

from sqlalchemy import case, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.database import Database, now_plus
from app.queue import JobQueue
from app.settings import Settings
from app.storage import Storage
from app.tables import ACTIVE, Job, JobState

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 60.0
_BATCH = 100


class Reconciler:
    """A thread that looks at the jobs table every ``reconcile_seconds``."""

    def __init__(
        self, database: Database, storage: Storage, queue: JobQueue, settings: Settings
    ) -> None:
        self._database = database
        self._storage = storage
        self._queue = queue
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def reconcile(self) -> None:
        """One round."""
        with self._database.session() as session:
            due = self._due(session)
            lost = self._lose(session)
            session.commit()
        for job_id in due:
            self._queue.announce(job_id)
        for job_id, fence in lost:
            logger.warning("job_lost job=%s", job_id)
            self._storage.remove(self._storage.attempt(job_id, fence))

    def _run(self) -> None:
        while not self._stop.wait(self._settings.reconcile_seconds):
            try:
                self.reconcile()
            except SQLAlchemyError as error:
                # The database may be away for a while; the next round tries again.
                logger.warning("reconcile_failed error=%s", error)

    def _due(self, session: Session) -> list[UUID]:
        """Queued jobs to announce again; the pause doubles, so that a long queue stays quiet."""
        query = (
            select(Job.id, Job.announcements)
            .where(Job.state == JobState.QUEUED, Job.announce_at <= now_plus())
            .order_by(Job.created_at)
            .limit(_BATCH)
        )
        due: list[UUID] = []
        for job_id, announcements in session.execute(query).all():
            pause = self._settings.announce_again_seconds * 2 ** min(announcements, 10)
            statement = (
                update(Job)
                .where(Job.id == job_id, Job.announcements == announcements)
                .where(Job.state == JobState.QUEUED)
                .values(
                    announcements=announcements + 1,
                    announce_at=now_plus(min(pause, _LONGEST_PAUSE_SECONDS)),
                )
                .returning(Job.id)
            )
            due += session.scalars(statement).all()
        return due

    def _lose(self, session: Session) -> list[tuple[UUID, int]]:
        """End jobs whose lease ran out: nobody works on them any more."""
        running = Job.state == JobState.RUNNING  # else its user wanted it to stop, and so it did
        words = (
            "The worker fell silent (killed, out of memory, or its host is down). "
            "Nothing was kept; submit the job again."
        )
        statement = (
            update(Job)
            .where(Job.state.in_(ACTIVE), Job.lease_until < now_plus())
            .values(
                state=case((running, JobState.FAILED.value), else_=JobState.CANCELLED.value),
                error_code=case((running, "worker_lost")),
                error_message=case((running, words)),
                # Raising the fence turns away a worker that was only asleep.
                fence=Job.fence + 1,
                finished_at=now_plus(),
                lease_owner=None,
                lease_until=None,
                steps_per_second=None,
            )
            .returning(Job.id, Job.fence)
        )
        return [(job_id, fence - 1) for job_id, fence in session.execute(statement)]
