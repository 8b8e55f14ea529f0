"""Does a registration: the API calls it within a request, and the worker for a job."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app.database import Database
from app.datasets.registrar import Complete, NextVersion, Registered, Registrar
from app.datasets.schemas import DatasetCreate
from app.registrations import versions
from app.registrations.plan import RegistrationPlan
from app.settings import Settings
from app.storage import Storage
from models.data.intake.inputs import Inputs
from models.data.intake.one_pass import OnSection


@dataclass(frozen=True)
class Work:
    """A registration that is ready to be done: the dataset, and the images and masks to read."""

    request: DatasetCreate
    inputs: Inputs
    version: NextVersion | None


class Workshop:
    """Does registrations in a data folder and a database."""

    def __init__(self, database: Database, storage: Storage, settings: Settings) -> None:
        self._database, self._storage, self._settings = database, storage, settings
        self._registrar = Registrar(database, storage, settings)

    def prepare(self, plan: RegistrationPlan, upload: Path) -> Work:
        """Find what is to be read; ``upload`` is the folder of the files sent.

        Raises:
            Invalid: the folder of the request is not there, or a change needs the files.
            NotFound, Conflict: the dataset before was deleted, or has a newer version.
            UploadGone: a file that was sent is not there.
        """
        if plan.previous is None:
            return Work(*plan.read(self._settings, upload), None)
        with self._database.reading() as session:
            previous = versions.previous_of(session, plan.previous)
            versions.check_newest(session, plan.previous)
        request = plan.request
        assert isinstance(request, DatasetCreate)  # a cell is read anew, as another dataset
        # Without files the stored sections are read.
        stored = not plan.files and request.folder is None
        version = versions.next_version(self._database, previous, request, stored=stored)
        if not stored:
            return Work(*plan.read(self._settings, upload), version)
        folder = self._storage.dataset(previous.id)
        return Work(request, versions.stored_inputs(previous, folder, request), version)

    def do(self, work: Work, *, on_section: OnSection, complete: Complete) -> Registered:
        """Register the dataset; see ``Registrar.register``."""

        def also(session: Session, registered: Registered) -> None:
            if work.version is not None:
                versions.complete_as_newest(session, work.version.previous.id, registered)
            complete(session, registered)

        return self._registrar.register(
            work.request,
            work.inputs,
            on_section=on_section,
            complete=also,
            version=work.version,
        )
