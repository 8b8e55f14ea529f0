"""What ended processes left is removed, and nothing else."""

import os
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select, update

from app.database import Database, now_plus
from app.datasets import leftovers, service
from app.settings import Settings
from app.storage import Storage
from app.tables import Dataset, Image
from tests.app.files import grey, png, registered, upload
from tests.app.records import add_waiting
from tests.processes import wait_for

DAY_SECONDS = 24 * 3600


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.data_folder)


def register(api: httpx.Client, name: str) -> UUID:
    return UUID(registered(upload(api, {"a.png": png(grey(1))}, name=name))["id"])


def change(database: Database, dataset_id: UUID, **values: object) -> None:
    with database.session() as session:
        session.execute(update(Dataset).where(Dataset.id == dataset_id).values(values))
        session.commit()


def aged(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    old = path.stat().st_mtime - DAY_SECONDS - 60
    os.utime(path, (old, old))
    return path


def left(database: Database, storage: Storage, dataset_id: UUID) -> tuple[bool, int, bool]:
    """Whether a dataset has a row, the number of its images, and whether it has a folder."""
    with database.reading() as session:
        row = session.get(Dataset, dataset_id)
        images = select(func.count()).where(Image.dataset_id == dataset_id)
        return row is not None, session.scalar(images) or 0, storage.dataset(dataset_id).is_dir()


def test_a_deletion_that_was_cut_off_is_completed(
    api: httpx.Client, database: Database, storage: Storage
) -> None:
    whole, half, rows_only = (register(api, name) for name in "abc")
    for dataset_id in (half, rows_only):
        change(database, dataset_id, deleted_at=now_plus(), identity=None)
    storage.remove(storage.dataset(rows_only))
    leftovers.complete_deletions(database, storage)
    assert left(database, storage, whole) == (True, 1, True)
    assert left(database, storage, half) == left(database, storage, rows_only) == (True, 0, False)


def test_a_registration_that_was_cut_off_is_dropped_after_a_day(
    api: httpx.Client, database: Database, storage: Storage
) -> None:
    old, young = register(api, "a"), register(api, "b")
    change(database, old, hidden=True, identity=None, created_at=now_plus(-DAY_SECONDS - 60))
    change(database, young, hidden=True, identity=None)
    leftovers.drop_leftovers(database, storage)
    assert left(database, storage, old) == (False, 0, False)
    assert left(database, storage, young) == (True, 1, True)


def test_folders_without_rows_go_after_a_day(
    api: httpx.Client, database: Database, storage: Storage
) -> None:
    dataset, job = register(api, "a"), add_waiting(database)
    kept = [aged(storage.dataset(dataset)), aged(storage.job(job)), storage.dataset(uuid4())]
    kept += [aged(storage.folder / "datasets" / "notes of mine"), storage.job(uuid4())]
    for path in kept:
        path.mkdir(exist_ok=True)
    gone = [aged(storage.dataset(uuid4())), aged(storage.job(uuid4()))]
    leftovers.drop_leftovers(database, storage)
    assert [path.is_dir() for path in kept] == [True] * 5
    assert [path.is_dir() for path in gone] == [False] * 2


def test_a_folder_is_young_when_its_registration_ends(storage: Storage) -> None:
    """It may have taken more than a day until then."""
    dataset_id = uuid4()
    with storage.new_dataset(dataset_id) as draft:
        aged(draft)
    assert list(storage.old_folders("datasets")) == []


def test_deletion_hides_at_once_and_a_later_process_completes_it(
    api: httpx.Client, database: Database, storage: Storage
) -> None:
    dataset_id, files = register(api, "a"), {"a.png": png(grey(1))}
    service.remove(database, dataset_id)
    assert left(database, storage, dataset_id) == (True, 1, True)
    assert api.get(f"/datasets/{dataset_id}").status_code == 404
    again = UUID(registered(upload(api, files, name="a"))["id"])
    assert again != dataset_id
    remover = leftovers.Remover(database, storage)
    remover.start()
    try:
        gone = (True, 0, False)
        wait_for(lambda: left(database, storage, dataset_id) == gone or None, "the end of files")
    finally:
        remover.close()
    assert left(database, storage, again) == (True, 1, True)
