"""Registers datasets: checks and stores files and rows, and shows the dataset at the end."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.database import Database, now_plus
from app.datasets import rows
from app.datasets.schemas import DatasetCreate
from app.errors import Invalid, OutOfStorage, ProblemItem
from app.settings import Settings
from app.storage import Storage, is_disk_full
from app.tables import Dataset
from models.data.description import Description
from models.data.intake.findings import DomainRefused
from models.data.intake.inputs import Inputs
from models.data.intake.one_pass import OnSection, SectionsRead, store_domain
from models.data.intake.store import StoredDomain, StoredTiles


@dataclass(frozen=True)
class Registered:
    """The dataset that a registration led to; not ``new`` if an equal one was there before."""

    dataset_id: UUID
    new: bool


Complete = Callable[[Session, Registered], None]
"""Adds to the transaction that shows the dataset; an exception undoes it."""


@dataclass(frozen=True)
class NextVersion:
    """The parts of a registration that differ for a new version of the dataset ``previous``.

    ``reading`` describes how the files are read, where that differs from the description that the
    dataset gets. ``prepare`` is called with the new dataset and its images, before it
    is shown.
    """

    previous: Dataset
    prepare: Callable[[Dataset, StoredTiles], None]
    reading: Description | None = None


class Registrar:
    """Registers datasets in a data folder and a database."""

    def __init__(self, database: Database, storage: Storage, settings: Settings) -> None:
        self._database, self._storage, self._settings = database, storage, settings

    def register(
        self,
        request: DatasetCreate,
        files: Inputs,
        *,
        on_section: OnSection = lambda _: None,
        complete: Complete = lambda *_: None,
        version: NextVersion | None = None,
    ) -> Registered:
        """Check and store the files and their rows, and then show the dataset.

        ``on_section`` is called after each section, and may end the registration by an exception.

        If a dataset of the same name and content exists, it is returned, and nothing is stored.

        Raises:
            Invalid: names each file that is wrong.
            OutOfStorage: the data folder is full.
        """
        dataset_id = uuid4()
        try:
            with self._storage.new_dataset(dataset_id) as draft:
                reading = request if version is None else version.reading or request
                stored = self._store(reading, files, draft, on_section)
            identity = identity_of(request.name, stored.digest)
            registered = self._show(None, identity, complete)
            if registered is None:
                dataset = _row(dataset_id, request, stored)
                if version is not None:
                    dataset.previous_id = version.previous.id
                    dataset.version = version.previous.version + 1
                rows.write_hidden(self._database, dataset, stored.tiles)
                if version is not None:
                    version.prepare(dataset, stored.tiles)
                registered = self._show(dataset_id, identity, complete)
                assert registered is not None
        except BaseException as error:
            self._discard(dataset_id)
            if is_disk_full(error):
                raise OutOfStorage(
                    "the service's data folder is full, and no file of the dataset was kept: ask "
                    "the operator for more disk space, or delete datasets"
                ) from error
            raise
        if not registered.new:
            self._discard(dataset_id)
        return registered

    def _store(
        self, description: Description, files: Inputs, draft: Path, on_section: OnSection
    ) -> StoredDomain:
        def told(read: SectionsRead) -> None:
            os.utime(draft)  # a folder that nobody has touched for a day is given up
            on_section(read)

        limit = self._settings.max_section_pixels
        try:
            return store_domain(description, files, draft, max_pixels=limit, on_section=told)
        except DomainRefused as error:
            items = [ProblemItem(where=each.where, message=each.message) for each in error.problems]
            raise Invalid(str(error), items) from error

    def _show(
        self, dataset_id: UUID | None, identity: str, complete: Complete
    ) -> Registered | None:
        """Show a hidden dataset, unless an equal one is shown already; return the one that is."""
        while True:  # ends: the second time the equal dataset is found
            try:
                with self._database.session() as session:
                    first = session.scalar(select(Dataset.id).where(Dataset.identity == identity))
                    if first is not None:
                        registered = Registered(first, new=False)
                    elif dataset_id is None:
                        return None
                    else:
                        registered = Registered(dataset_id, new=True)
                        shown = {"hidden": False, "identity": identity, "created_at": now_plus()}
                        statement = update(Dataset).where(Dataset.id == dataset_id)
                        session.execute(statement.values(shown))
                    complete(session, registered)
                    session.commit()
                    return registered
            except IntegrityError:
                # An equal dataset was shown at the same moment, by PostgreSQL's other transactions.
                with self._database.reading() as session:
                    known = select(Dataset.id).where(Dataset.identity == identity)
                    if session.scalar(known) is None:
                        raise

    def _discard(self, dataset_id: UUID) -> None:
        self._storage.remove(self._storage.dataset(dataset_id))
        rows.delete_hidden(self._database, dataset_id)


def identity_of(name: str, digest: str) -> str:
    """Return the SHA-256 by which a dataset of the same name and content is found."""
    return hashlib.sha256(f"{name}\n{digest}".encode()).hexdigest()


def _row(dataset_id: UUID, request: DatasetCreate, stored: StoredDomain) -> Dataset:
    return Dataset(
        id=dataset_id,
        name=request.name,
        class_names=request.class_names,
        pixel_size_nm=stored.pixel_size_nm,
        pixel_size_from=stored.pixel_size_from,
        tile_px=request.tile_px,
        dtype=stored.dtype,
        window_low=stored.window[0],
        window_high=stored.window[1],
        digest=stored.digest,
        pixels_digest=stored.pixels_digest,
        num_bytes=stored.num_bytes,
        num_sections=len(stored.sections),
        num_masks=sum(section.has_mask for section in stored.sections),
        num_images=len(stored.tiles),
        sections=stored.sections,
        section_pixels=stored.tiles.of_sections(),
        section_images=stored.tiles.num_of_sections(),
        images_without=stored.tiles.without(len(request.class_names)),
        histogram=stored.histogram,
        description=request.model_dump(mode="json", exclude={"name", "folder", "uploads"}),
        notes=stored.notes,
    )
