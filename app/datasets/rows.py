"""Writes and deletes the rows of a dataset, of which there may be a million.

The rows are written in many short transactions, so that other writers need not wait for long: on
SQLite there is one writer at a time. Until the last transaction the dataset is hidden, so readers
see all of it or nothing.
"""

import json
from collections.abc import Iterator
from itertools import islice
from uuid import UUID

from sqlalchemy import Uuid, bindparam, delete, func, select, text

from app.database import Database
from app.tables import Dataset, Image, LabelChange
from models.data.intake.store import StoredTiles

_ROWS_AT_A_TIME = 20_000

_COLUMNS = ("n", "section", "y0", "x0", "height", "width", "class_pixels")

# One parameter holds all rows of a statement, as JSON. A parameter for each value takes twice the
# time on SQLite, and four times on PostgreSQL.
_INSERT = {
    "sqlite": "SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, "
    "value->6, :dataset_id, '{}' FROM json_each(:rows)",
    "postgresql": "SELECT (value->>0)::int, (value->>1)::int, (value->>2)::int, (value->>3)::int, "
    "(value->>4)::int, (value->>5)::int, value->6, :dataset_id, '{}' "
    "FROM jsonb_array_elements(CAST(:rows AS jsonb))",
}


def write_hidden(database: Database, dataset: Dataset, tiles: StoredTiles) -> None:
    """Insert a dataset that nobody sees yet, and then its images, without labels."""
    dataset.hidden = True
    with database.session() as session:
        session.add(dataset)
        session.commit()
        dataset_id = dataset.id
    into = f"INSERT INTO images ({', '.join(_COLUMNS)}, dataset_id, labels) "
    statement = text(into + _INSERT[database.engine.dialect.name])
    statement = statement.bindparams(bindparam("dataset_id", dataset_id, Uuid()))
    rows = _rows(tiles)
    while chunk := list(islice(rows, _ROWS_AT_A_TIME)):
        with database.session() as session:
            session.connection().execute(statement, {"rows": json.dumps(chunk)})
            session.commit()
        database.give_way()


def delete_images(database: Database, dataset_id: UUID) -> None:
    """Delete the images of a dataset that nobody sees, some at a time."""
    of_dataset = Image.dataset_id == dataset_id
    with database.reading() as session:
        last = session.scalar(select(func.max(Image.n)).where(of_dataset))
    for start in range(0, 0 if last is None else last + 1, _ROWS_AT_A_TIME):
        some = Image.n.between(start, start + _ROWS_AT_A_TIME - 1)
        with database.session() as session:
            session.execute(delete(Image).where(of_dataset, some))
            session.commit()
        database.give_way()


def delete_hidden(database: Database, dataset_id: UUID) -> None:
    """Delete all rows of a dataset that is still hidden, if it has any."""
    with database.reading() as session:
        assert session.scalar(select(Dataset.hidden).where(Dataset.id == dataset_id)) is not False
    delete_images(database, dataset_id)
    with database.session() as session:
        session.execute(delete(LabelChange).where(LabelChange.dataset_id == dataset_id))
        session.execute(delete(Dataset).where(Dataset.id == dataset_id, Dataset.hidden))
        session.commit()


def _rows(tiles: StoredTiles) -> Iterator[tuple[object, ...]]:
    """Yield the values of the columns for each image, in order."""
    for n, tile in enumerate(tiles):
        yield n, *(getattr(tile, name) for name in _COLUMNS[1:])
