"""The rows of a dataset: many, in transactions that let others in between."""

import threading
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from app.database import Database
from app.datasets import rows
from app.tables import Dataset, Image, Job
from models.data.intake.store import StoredTiles
from models.data.sections import Section
from tests.app.records import add_waiting

pytestmark = pytest.mark.heavy

SIDE_PX = 16 * 200


def many(num_sections: int = 1) -> StoredTiles:
    """40,000 tiles of 16 px for each section."""
    sections = [Section(n, f"{n}", "train", SIDE_PX, SIDE_PX, False) for n in range(num_sections)]
    return StoredTiles(16, tuple(sections), (None,) * num_sections)


def hidden(database: Database, tiles: StoredTiles) -> UUID:
    dataset = Dataset(
        id=uuid4(),
        name="a",
        class_names=["x", "y"],
        pixel_size_nm=4,
        dtype="uint8",
        window_low=0,
        window_high=255,
        digest="",
        num_bytes=0,
        num_sections=len(tiles.sections),
        num_masks=0,
        num_images=len(tiles),
        sections=tiles.sections,
    )
    rows.write_hidden(database, dataset, tiles)
    return dataset.id


def numbers(database: Database, dataset_id: UUID) -> tuple[int, int | None, int | None]:
    query = select(func.count(), func.min(Image.n), func.max(Image.n))
    with database.reading() as session:
        count, first, last = session.execute(query.where(Image.dataset_id == dataset_id)).one()
    return count, first, last


def test_all_rows_are_written_and_deleted(database: Database) -> None:
    tiles = many()
    dataset_id, other = hidden(database, tiles), hidden(database, StoredTiles(16, (), ()))
    assert numbers(database, dataset_id) == (40_000, 0, 39_999)
    with database.reading() as session:
        last = session.get_one(Image, (dataset_id, 39_999))
        assert (last.y0, last.x0, last.height, last.width) == (SIDE_PX - 16, SIDE_PX - 16, 16, 16)
        assert (last.class_pixels, last.labels) == (None, {})
    rows.delete_hidden(database, dataset_id)
    assert numbers(database, dataset_id) == (0, None, None)
    with database.reading() as session:
        assert session.scalars(select(Dataset.id)).all() == [other]


def test_other_writers_are_let_in_meanwhile(database: Database) -> None:
    job_id = add_waiting(database)
    ended, written = threading.Event(), 0

    def write() -> None:
        nonlocal written
        while not ended.is_set():
            with database.session() as session:
                session.execute(update(Job).where(Job.id == job_id).values(step=Job.step + 1))
                session.commit()
            written += 1

    others = threading.Thread(target=write)
    others.start()
    try:
        dataset_id = hidden(database, many())
        rows.delete_hidden(database, dataset_id)
    finally:
        ended.set()
        others.join()
    # Two chunks are written and two deleted, and a writer comes in after each.
    assert written >= 4
