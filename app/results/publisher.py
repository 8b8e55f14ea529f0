"""Publishes the results of jobs: the thread that copies them to STYLEFILTER_RESULTS_URL.

The request is a row that the job's last transaction writes, and it stays until the copy is whole.
A place that is away, full or denied therefore costs no job anything: the job has succeeded, and the
copy is tried again. Each API process runs this thread. A thread takes a row by a conditional
UPDATE, and equal copies do no harm to each other, so many may run at once.
"""

import logging
import threading
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database, now_plus
from app.jobs.reading import read_jobs
from app.results.folder import Destination
from app.storage import Storage
from app.tables import Job, Publication
from models.data.files import written_aside
from models.data.readers.places import PlaceError
from models.data.readers.remote_store import needing_obstore

logger = logging.getLogger(__name__)

JOB_FILE = "job.json"
"""The file beside a job's weights that holds what GET /jobs/{job_id} answers."""

_POLL_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_TAKEN_SECONDS = 600.0
"""The time for which a row is reserved, from the start of each file. After it the thread that took
the row is lost, or slow; another may send the file too."""
_FIRST_PAUSE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 3600.0
_DOUBLINGS = 9


@dataclass(frozen=True)
class _Taken:
    """A publication that this thread has taken; ``attempts`` counts its tries with this one."""

    job_id: UUID
    attempts: int


class _Stopped(Exception):
    """The service stops, or another thread has taken the publication."""


class Publisher:
    """Runs the thread that publishes results to an address."""

    def __init__(self, database: Database, storage: Storage, address: str) -> None:
        """Prepare the thread.

        Raises:
            PlaceError: the package obstore is not installed.
        """
        with needing_obstore():
            import obstore  # noqa: F401 - a missing package is told when the service starts
        self._database, self._storage, self._address = database, storage, address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=_CLOSE_SECONDS)

    def publish_next(self) -> bool:
        """Try the publication that is due for the longest time; return False if none is due."""
        taken = self._take()
        if taken is None:
            return False
        try:
            url = self._publish(taken)
        except _Stopped:
            self._change(taken, next_at=now_plus())
        except (PlaceError, OSError) as error:
            # The answer about a job tells no path of the service; its log does.
            problem = str(error) if isinstance(error, PlaceError) else f"{error.strerror}"
            doublings = min(taken.attempts - 1, _DOUBLINGS)
            pause = min(_FIRST_PAUSE_SECONDS * 2**doublings, _LONGEST_PAUSE_SECONDS)
            self._change(taken, next_at=now_plus(pause), problem=problem)
            logger.warning("results_not_published job=%s error=%s", taken.job_id, error)
        else:
            self._change(taken, next_at=None, problem=None, url=url)
            logger.info("results_published job=%s url=%s", taken.job_id, url)
        return True

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                busy = self.publish_next()
            except SQLAlchemyError as error:
                # The database may be away for a while; the next round tries again.
                logger.warning("publisher_failed error=%s", error)
                busy = False
            if not busy:
                self._stop.wait(_POLL_SECONDS)

    def _take(self) -> _Taken | None:
        query = (
            select(Publication.job_id, Publication.attempts)
            .where(Publication.next_at <= now_plus())
            .order_by(Publication.next_at)
            .limit(20)
        )
        with self._database.reading() as session:
            due = session.execute(query).all()
        for job_id, attempts in due:
            held = {"next_at": now_plus(_TAKEN_SECONDS), "attempts": attempts + 1}
            if self._change(_Taken(job_id, attempts), **held):
                return _Taken(job_id, attempts + 1)
        return None

    def _publish(self, taken: _Taken) -> str:
        """Copy the folder that a job's last attempt left, and beside it what its row says."""
        with self._database.reading() as session:
            job = session.get_one(Job, taken.job_id)
            told = read_jobs(session, [job])[0]
            folder = self._storage.attempt(job.id, job.attempt)
        if not folder.is_dir():
            raise PlaceError("the files of the job are no longer in the data folder: restore them")
        with written_aside(folder / JOB_FILE) as draft:
            draft.write_text(told.model_dump_json(indent=1, exclude={"published"}))

        def hold() -> None:
            if self._stop.is_set() or not self._change(taken, next_at=now_plus(_TAKEN_SECONDS)):
                raise _Stopped

        return Destination(self._address).publish(folder, str(job.id), before_file=hold)

    def _change(self, seen: _Taken, **values: object) -> bool:
        """Change a row; return False if another thread has taken it since it was seen."""
        statement = (
            update(Publication)
            .where(Publication.job_id == seen.job_id, Publication.attempts == seen.attempts)
            .values(values)
            .returning(Publication.job_id)
        )
        with self._database.session() as session:
            changed = session.scalar(statement)
            session.commit()
        return changed is not None
