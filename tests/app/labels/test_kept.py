"""Labels that a new version takes over, when there are many images."""

from uuid import UUID, uuid4

from sqlalchemy import func, select, update

from app.database import Database
from app.datasets import rows
from app.labels.kept import keep
from app.tables import Dataset, Image
from models.data.intake.padding import DataField
from models.data.intake.store import StoredTiles
from models.data.sections import Section

SIDE_PX = 16 * 100


def dataset(
    database: Database,
    names: str,
    class_names: list[str],
    fields: dict[int, DataField] | None = None,
) -> tuple[Dataset, StoredTiles]:
    """A hidden dataset of 10,000 tiles for each section, less those outside of ``fields``."""
    sections = tuple(
        Section(n, name, "train", SIDE_PX, SIDE_PX, False) for n, name in enumerate(names)
    )
    tiles = StoredTiles(16, sections, (None,) * len(names), fields or {})
    row = Dataset(
        id=uuid4(),
        name="a",
        class_names=class_names,
        pixel_size_nm=4,
        tile_px=16,
        dtype="uint8",
        window_low=0,
        window_high=255,
        digest="",
        num_bytes=0,
        num_sections=len(sections),
        num_masks=0,
        num_images=len(tiles),
        sections=sections,
    )
    rows.write_hidden(database, row, tiles)
    return row, tiles


def labelled(database: Database, dataset_id: UUID, labels: dict[str, str]) -> list[int]:
    query = select(Image.n).where(Image.dataset_id == dataset_id, Image.labels == labels)
    with database.reading() as session:
        return list(session.scalars(query.order_by(Image.n)))


def test_thousands_of_labels_find_their_images(database: Database) -> None:
    old, _ = dataset(database, "ab", ["x", "y", "z"])
    new, tiles = dataset(database, "cb", ["z", "x"])
    with database.session() as session:
        of_old = update(Image).where(Image.dataset_id == old.id)
        session.execute(of_old.values(labels={"x": "present", "y": "absent"}))
        session.execute(of_old.where(Image.n == 10_007).values(labels={"y": "absent"}))
        session.execute(of_old.where(Image.n == 10_008).values(labels={}))
        session.commit()
    assert keep(database, old, new, tiles) == 9_998
    # The section b is the second of both; its images 7 and 8 have nothing to keep.
    expected = [n for n in range(10_000, 20_000) if n not in (10_007, 10_008)]
    assert labelled(database, new.id, {"x": "present"}) == expected
    with database.reading() as session:
        total = select(func.count()).where(Image.dataset_id == new.id)
        assert session.scalar(total) == 20_000


def test_tiles_that_are_no_data_any_more_are_left_out(database: Database) -> None:
    """The images of the version have other numbers then."""
    field = {0: DataField(y0=32, y1=64, x0=16, x1=48)}
    old, _ = dataset(database, "ab", ["x", "y"])
    new, tiles = dataset(database, "ab", ["x", "y"], field)
    assert new.num_images == 2 * 2 + 10_000
    with database.session() as session:
        of_old = update(Image).where(Image.dataset_id == old.id)
        for n, word in ((0, "present"), (201, "present"), (302, "absent"), (10_001, "absent")):
            session.execute(of_old.where(Image.n == n).values(labels={"x": word}))
        session.commit()
    assert keep(database, old, new, tiles) == 3
    assert labelled(database, new.id, {"x": "present"}) == [0]
    assert labelled(database, new.id, {"x": "absent"}) == [3, 4 + 1]
