"""Writes and deletes the rows of a dataset, of which there may be a million.

The rows are written in many short transactions, so that other writers need not wait for long: on
SQLite there is one writer at a time. Until the last transaction the dataset is hidden, so readers
see all of it or nothing.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import CursorResult, delete, insert, select

from app.database import Database
from app.tables import Dataset, Image
from models.data.store import StoredTiles

_ROWS_AT_A_TIME = 10_000


def write_hidden(database: Database, dataset: Dataset, tiles: StoredTiles) -> None:
    """Insert a dataset that nobody sees yet, and then its images."""
    dataset.hidden = True
    with database.session() as session:
        session.add(dataset)
        session.commit()
        dataset_id = dataset.id
    rows = _rows(dataset_id, tiles)
    while chunk := list(islice(rows, _ROWS_AT_A_TIME)):
        with database.session() as session:
            session.connection().execute(insert(Image), chunk)
            session.commit()
        database.give_way()


def delete_images(database: Database, dataset_id: UUID) -> None:
    """Delete the images of a dataset that nobody sees, some at a time."""
    of_dataset = Image.dataset_id == dataset_id
    while True:
        with database.session() as session:
            some = select(Image.n).where(of_dataset).order_by(Image.n).limit(_ROWS_AT_A_TIME)
            result = session.execute(delete(Image).where(of_dataset, Image.n.in_(some)))
            session.commit()
        assert isinstance(result, CursorResult)
        if result.rowcount < _ROWS_AT_A_TIME:
            return
        database.give_way()


def delete_hidden(database: Database, dataset_id: UUID) -> None:
    """Delete all rows of a dataset that is still hidden, if it has any."""
    with database.reading() as session:
        assert session.scalar(select(Dataset.hidden).where(Dataset.id == dataset_id)) is not False
    delete_images(database, dataset_id)
    with database.session() as session:
        session.execute(delete(Dataset).where(Dataset.id == dataset_id, Dataset.hidden))
        session.commit()


def _rows(dataset_id: UUID, tiles: StoredTiles) -> Iterator[dict[str, Any]]:
    for n, tile in enumerate(tiles):
        yield {"dataset_id": dataset_id, "n": n, "labels": {}, **vars(tile)}
