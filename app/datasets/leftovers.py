"""Removes what a process left that ended in the middle of a registration or a deletion.

The files in the data folder and the rows in the database cannot change at the same moment. So a
process that is killed between the two leaves files without rows, or rows that nobody sees.
"""

import logging
from collections.abc import Iterator
from uuid import UUID

from sqlalchemy import exists, select

from app.database import Database, now_plus
from app.datasets import rows
from app.storage import STALE_SECONDS, Storage
from app.tables import Dataset, Image, Job

logger = logging.getLogger(__name__)


def remove(database: Database, storage: Storage) -> None:
    """Bring files and rows together.

    Rows and files of deleted datasets go at once. Of datasets that are hidden, and of folders
    without a row, only those that are a day old go: a process may still be at work on younger ones.
    """
    for dataset_id in _deleted(database, storage):
        rows.delete_images(database, dataset_id)
        storage.remove(storage.dataset(dataset_id))
        logger.info("deletion_completed dataset=%s", dataset_id)
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
