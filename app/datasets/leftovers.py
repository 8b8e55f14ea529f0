"""Completes deletions, and removes what a process left that ended in a registration.

The files in the data folder and the rows in the database cannot change at the same moment. So a
deletion hides the dataset in one short transaction, and the rest follows. A process that is killed
in between leaves files without rows, or rows that nobody sees.
"""

import logging
import threading
from collections.abc import Iterator
from time import monotonic
from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database, now_plus
from app.datasets import rows
from app.storage import STALE_SECONDS, Storage
from app.tables import Dataset, Image, Job

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 3600.0
_CLOSE_SECONDS = 10.0


class Remover:
    """Runs the thread that completes deletions: at the start, when one is told, and each hour.

    Each API process runs it. To remove the same twice does no harm.
    """

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database, self._storage = database, storage
        self._told, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="remover", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def tell(self) -> None:
        """Have deletions completed now."""
        self._told.set()

    def close(self) -> None:
        self._stop.set()
        self._told.set()
        self._thread.join(timeout=_CLOSE_SECONDS)

    def _run(self) -> None:
        next_all = monotonic()
        while not self._stop.is_set():
            self._told.clear()
            try:
                complete_deletions(self._database, self._storage)
                if monotonic() >= next_all:  # seldom: this looks at the folder of each job
                    next_all = monotonic() + _EVERY_SECONDS
                    drop_leftovers(self._database, self._storage)
            except (SQLAlchemyError, OSError) as error:
                # The database or the disk may be away for a while; the next round tries again.
                logger.warning("removal_failed error=%s", error)
            if not self._stop.is_set():
                self._told.wait(max(0.0, next_all - monotonic()))


def complete_deletions(database: Database, storage: Storage) -> None:
    """Remove the rows and files of deleted datasets."""
    for dataset_id in _deleted(database, storage):
        rows.delete_images(database, dataset_id)
        storage.remove(storage.dataset(dataset_id))
        logger.info("deletion_completed dataset=%s", dataset_id)


def drop_leftovers(database: Database, storage: Storage) -> None:
    """Remove hidden datasets, and folders without a row, that are a day old.

    A process may still be at work on younger ones.
    """
    for dataset_id in _hidden(database):
        storage.remove(storage.dataset(dataset_id))
        rows.delete_hidden(database, dataset_id)
        logger.info("registration_dropped dataset=%s", dataset_id)
    for kind, table in (("datasets", Dataset), ("jobs", Job)):
        old = dict(storage.old_folders(kind))
        with database.reading() as session:
            known = set(session.scalars(select(table.id))) if old else set()
        for unknown in old.keys() - known:
            storage.remove(old[unknown])
            logger.info("folder_removed kind=%s id=%s", kind, unknown)


def _deleted(database: Database, storage: Storage) -> Iterator[UUID]:
    """Yield the deleted datasets that still have a folder or images."""
    images = exists().where(Image.dataset_id == Dataset.id)
    query = select(Dataset.id, images).where(Dataset.deleted_at.is_not(None))
    with database.reading() as session:
        found = session.execute(query).all()
    for dataset_id, has_images in found:
        if has_images or storage.dataset(dataset_id).is_dir():
            yield dataset_id


def _hidden(database: Database) -> list[UUID]:
    query = select(Dataset.id).where(Dataset.hidden, Dataset.created_at < now_plus(-STALE_SECONDS))
    with database.reading() as session:
        return list(session.scalars(query))
