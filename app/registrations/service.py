"""Takes registrations: a small dataset is registered at once, a large one by a job.

Both ways call ``Registrar.register``. A request that came before is answered with its dataset, or
with the job that registers it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from pydantic import JsonValue
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.columns import stored_object
from app.database import Database
from app.datasets import service as datasets
from app.datasets.registrar import Registered
from app.datasets.schemas import DatasetCreate, DatasetReport, NoteRead, OpenOrganelleCreate
from app.jobs import keys
from app.jobs import service as jobs
from app.jobs.queue import JobQueue
from app.jobs.schemas import JobRead
from app.jobs.submission import store
from app.registrations import versions
from app.registrations.plan import RegistrationPlan, SentFile
from app.registrations.uploads import Uploads
from app.registrations.work import Work, Workshop
from app.settings import Settings
from app.storage import Storage
from app.tables import UNFINISHED, Dataset, IdempotencyKey, Job, JobKind, Lane
from models.data.intake.inputs import InputFile, Inputs
from models.data.intake.one_pass import SectionsRead
from models.data.readers.places import LocalPlace, PlacedFile


@dataclass(frozen=True)
class Asked:
    """A request for a dataset: the files that came with it, and the wishes of its client."""

    request: DatasetCreate | OpenOrganelleCreate
    folder: Path
    """The folder of the files. It is taken over if a job registers the dataset."""
    files: tuple[SentFile, ...] = ()
    previous: UUID | None = None
    """The dataset of which this is to be a new version."""
    key: str | None = None
    later: bool = False
    """True if the client does not want to wait."""

    @property
    def digest(self) -> str:
        """The SHA-256 of the request, and of the files that were sent with it."""
        files = [file.model_dump(mode="json", exclude={"path"}) for file in self.files]
        previous = None if self.previous is None else str(self.previous)
        content = [self.request.model_dump(mode="json"), files, previous]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Done:
    """A registered dataset; not ``new`` if it was there before."""

    report: DatasetReport
    new: bool


class _TooLarge(Exception):
    """The dataset is too large to be registered within a request."""


class Registrations:
    """Takes registrations for one service."""

    def __init__(
        self, database: Database, storage: Storage, settings: Settings, queue: JobQueue
    ) -> None:
        self._database, self._storage = database, storage
        self._settings, self._queue = settings, queue
        self._workshop = Workshop(database, storage, settings)
        self._uploads = Uploads(storage.uploads, settings.max_upload_bytes)

    def changed(
        self, dataset_id: UUID, changes: Mapping[str, JsonValue], *, in_form: bool
    ) -> DatasetCreate:
        """Return the request for a new version of a dataset; see ``versions.changed``."""
        with self._database.reading() as session:
            previous = versions.previous_of(session, dataset_id)
        return versions.changed(previous, changes, in_form=in_form)

    def take(self, asked: Asked) -> Done | JobRead:
        """Register a dataset, or store a job that does; return what an equal request led to.

        Raises:
            Invalid: names each file that is wrong; or the key came with another request.
            NotFound, Conflict: an upload is not there, or not finished.
            OutOfStorage: the data folder is full.
        """
        if (known := self._known(asked)) is not None:
            return known
        if isinstance(asked.request, OpenOrganelleCreate):
            plan = RegistrationPlan(request=asked.request)
            plan.check(self._settings)
            return self._submit(asked, plan)  # even its metadata may take minutes to read
        uploads = asked.request.uploads
        files = asked.files if uploads is None else self._uploads.link(uploads, asked.folder)
        plan = RegistrationPlan(request=asked.request, files=files, previous=asked.previous)
        taken = self._take(asked, plan)
        for upload_id in [] if uploads is None else [*uploads.images, *uploads.masks]:
            self._uploads.remove(upload_id)
        return taken

    def _take(self, asked: Asked, plan: RegistrationPlan) -> Done | JobRead:
        work = self._workshop.prepare(plan, asked.folder)
        if not asked.later and not _exceed(work.inputs, self._settings.register_now_bytes):
            try:
                return self._register(asked, work)
            except _TooLarge:  # its files are packed: a job reads them again
                pass
        return self._submit(asked, plan)

    def _register(self, asked: Asked, work: Work) -> Done:
        def check(read: SectionsRead) -> None:
            if read.num_bytes > self._settings.register_now_bytes:
                raise _TooLarge

        def complete(session: Session, registered: Registered) -> None:
            for key in _keys(asked):
                if keys.find(session, key, asked.digest) is None:
                    row = IdempotencyKey(key=key, request_digest=asked.digest)
                    row.dataset_id = registered.dataset_id
                    session.add(row)

        registered = self._workshop.do(work, on_section=check, complete=complete)
        with self._database.reading() as session:
            return _done(session, registered.dataset_id, new=registered.new)

    def _submit(self, asked: Asked, plan: RegistrationPlan) -> Done | JobRead:
        """Hand the files over to a job, and announce it."""
        job = Job(
            id=uuid4(),
            kind=JobKind.REGISTER,
            lane=Lane.DATA,
            plan=plan.model_dump(mode="json"),
            source_id=plan.previous,  # so that nobody deletes it meanwhile
            config={},
            max_attempts=self._settings.max_attempts,
        )
        with self._handed_over(asked.folder, plan, job.id):
            try:
                with self._database.session() as session:
                    store(session, job, self._settings)
                    for key in _keys(asked):
                        row = IdempotencyKey(key=key, request_digest=asked.digest, job_id=job.id)
                        session.add(row)
                    session.commit()
            except IntegrityError:
                # An equal request came at the same moment, and was stored first.
                if (known := self._known(asked)) is None:
                    raise
                self._storage.remove(self._storage.job(job.id))
                return known
        self._queue.announce(job.id, Lane.DATA)
        with self._database.reading() as session:
            return jobs.get(session, job.id)

    @contextmanager
    def _handed_over(self, folder: Path, plan: RegistrationPlan, job_id: UUID) -> Iterator[None]:
        """Make the files sent the job's, on the disk before the job is in the database."""
        if plan.files:
            for file in plan.files:
                _to_disk(folder / file.path)
            _to_disk(folder)
            self._storage.job(job_id).mkdir()
            os.replace(folder, self._storage.upload(job_id))
            _to_disk(self._storage.job(job_id))
        try:
            yield
        except BaseException:
            shutil.rmtree(self._storage.job(job_id), ignore_errors=True)
            raise

    def _known(self, asked: Asked) -> Done | JobRead | None:
        """Return what the same request led to before, found by its key or by its content."""
        with self._database.session() as session:
            named = None if asked.key is None else keys.find(session, asked.key, asked.digest)
            if named is not None and named.job_id is not None:
                return jobs.get(session, named.job_id)
            if named is not None and named.dataset_id is not None:
                return _done(session, named.dataset_id, new=False)
            content = _content_key(asked)
            equal = None if content is None else session.get(IdempotencyKey, content)
            if equal is None:
                return None
            if equal.dataset_id is not None:
                return _done(session, equal.dataset_id, new=False)
            job = session.get_one(Job, equal.job_id)
            if job.state in UNFINISHED:
                return jobs.get(session, job.id)
            if (dataset_id := _made_by(session, job)) is not None:
                return _done(session, dataset_id, new=False)
            session.delete(equal)  # the job has failed, or its dataset was deleted: begin anew
            session.commit()
            return None


def _made_by(session: Session, job: Job) -> UUID | None:
    """Return the dataset that a registration made, if it is still there."""
    stored = stored_object(job.result).get("dataset")
    if not isinstance(stored, str):
        return None
    dataset = session.get(Dataset, UUID(stored))
    return dataset.id if dataset is not None and dataset.deleted_at is None else None


def _done(session: Session, dataset_id: UUID, *, new: bool) -> Done:
    report = datasets.report(session, dataset_id)
    if not new:
        words = "had been registered before with this name and content: this is that dataset"
        report.notes.append(NoteRead(where="request", code="registered_before", message=words))
    return Done(report, new)


def _keys(asked: Asked) -> list[str]:
    """Return the keys by which the same request is found again."""
    return [key for key in (asked.key, _content_key(asked)) if key is not None]


def _content_key(asked: Asked) -> str | None:
    """Return the key of what was sent; None for a folder, whose content the request leaves open."""
    if isinstance(asked.request, DatasetCreate) and asked.request.folder is not None:
        return None
    return f"content:{asked.digest}"


def _exceed(inputs: Inputs, num_bytes: int) -> bool:
    """Tell whether files of this computer hold more bytes.

    The chunks of a Zarr folder and files far away are not counted: how many pixels they hold is
    seen when they are read.
    """
    total = 0
    for given in (*inputs.images, *inputs.masks):
        if isinstance(given, InputFile) and isinstance(given.file, PlacedFile):
            place = given.file.place
            total += (place.size(given.file.key) or 0) if isinstance(place, LocalPlace) else 0
            if total > num_bytes:
                return True
    return False


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
