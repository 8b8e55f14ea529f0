"""The process that registers a dataset: ``python -m worker.registrar JOB ATTEMPT``.

It loads no torch, so that it starts at once. An attempt reads all files from the start, so there is
no state to save: a paused or interrupted registration begins again from the files that were sent.
"""

import sys
from threading import Event
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.database import Database
from app.datasets.registrar import Registered
from app.errors import Invalid, ServiceError
from app.jobs.result import JobResult
from app.jobs.transitions import Lease, succeed
from app.registrations.plan import RegistrationPlan, UploadGone
from app.registrations.work import Workshop
from app.settings import Settings, read_settings
from app.storage import Storage
from app.tables import Dataset, Job
from models.data.intake.one_pass import SectionsRead
from models.training.progress import Progress
from worker.attempt import run_attempt
from worker.process import told_to_stop
from worker.progress import Recorder, Replaced

_MOST_PROBLEMS = 100


class Registration:
    """One attempt of a job that registers a dataset."""

    def __init__(self, settings: Settings, lease: Lease, stopping: Event | None = None) -> None:
        self._settings, self._lease = settings, lease
        self._database = Database(settings.database)
        self._storage = Storage(settings.data_folder)
        self._recorder = Recorder(self._database, lease, settings.lease_seconds, stopping)

    def run(self) -> int:
        """Register the dataset and record the end; return the exit code."""
        return run_attempt(self._register, self._database, self._lease, describe=describe)

    def _register(self) -> None:
        plan = self._plan()
        workshop = Workshop(self._database, self._storage, self._settings)
        work = workshop.prepare(plan, self._storage.upload(self._lease.job_id))
        workshop.do(work, on_section=self._report, complete=self._complete)

    def _plan(self) -> RegistrationPlan:
        with self._database.reading() as session:
            return RegistrationPlan.model_validate(session.get_one(Job, self._lease.job_id).plan)

    def _report(self, read: SectionsRead) -> None:
        self._recorder(Progress("register", read.num_read, read.total, {}))

    def _complete(self, session: Session, registered: Registered) -> None:
        """End the job in the transaction that shows the dataset: both are seen, or neither."""
        dataset = session.get_one(Dataset, registered.dataset_id)
        notes = [f"{note.where}: {note.message}" for note in dataset.notes]
        if not registered.new:
            notes.insert(0, "A dataset of this name and content had been registered before.")
        result = JobResult(dataset=dataset.id, notes=notes)
        if not succeed(session, self._lease, result.model_dump(mode="json")):
            raise Replaced(f"job {self._lease.job_id} was ended by another")


def describe(error: Exception) -> tuple[str, str]:
    """Return a stable code for an error, and words for the user."""
    match error:
        case Invalid():
            lines = [f"{item.where}: {item.message}" for item in error.errors[:_MOST_PROBLEMS]]
            if (untold := len(error.errors) - len(lines)) > 0:
                lines.append(f"and {untold} more")
            return "invalid_files", "\n".join([error.detail, *lines])
        case ServiceError():
            return error.code, error.detail
        case UploadGone():
            return "upload_gone", str(error)
        case ValidationError():
            return "stored_unusable", f"This version cannot read what is stored: {error}"
        case MemoryError():
            return "out_of_memory", "Memory is too small for a section of the dataset."
    return "failed", f"{type(error).__name__}: {error}"


def main() -> int:
    job_id, attempt = UUID(sys.argv[1]), int(sys.argv[2])
    stopping = told_to_stop(job_id)
    return Registration(read_settings(), Lease(job_id, attempt), stopping).run()


if __name__ == "__main__":
    sys.exit(main())
