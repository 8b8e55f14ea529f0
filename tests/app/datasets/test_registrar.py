"""The registration of a dataset: one for equal requests, whole or not at all."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.database import Database
from app.datasets import rows
from app.datasets.registrar import Registered, Registrar
from app.datasets.registration import folder_files
from app.datasets.schemas import DatasetCreate
from app.settings import Settings
from app.storage import Storage
from app.tables import Dataset, Image
from tests.app.files import METADATA, Folder, grey, mask, png, problem, registered, tiff, upload
from tests.processes import wait_for

REQUEST = DatasetCreate.model_validate(METADATA | {"folder": "cells", "tile_px": 16})

Register = Callable[..., Registered]


@pytest.fixture
def register(settings: Settings, database: Database, folder: Folder) -> Register:
    """Registers the folder, which holds an image with a mask and one without."""
    folder.image("a.png", png(grey(1)))
    folder.image("b.png", png(grey(2)))
    folder.mask("a.png", png(mask()))
    registrar = Registrar(database, Storage(settings.data_folder), settings)
    files = folder_files(settings, "cells")
    return lambda **changes: registrar.register(
        REQUEST.model_copy(update=changes.pop("fields", {})), files, **changes
    )


def counted(database: Database, table: type[Any]) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def folders(settings: Settings) -> set[str]:
    return {path.name for path in (settings.data_folder / "datasets").iterdir()}


def test_a_dataset_keeps_what_was_read(register: Register, database: Database) -> None:
    found = register()
    with database.reading() as session:
        dataset = session.get_one(Dataset, found.dataset_id)
        assert dataset.section_pixels == [[2230, 10], None]
        assert dataset.histogram is not None
        both = np.concatenate([grey(1).ravel(), grey(2).ravel()])
        assert (dataset.histogram.low, dataset.histogram.step) == (0, 1)
        np.testing.assert_array_equal(dataset.histogram.counts, np.bincount(both))
        assert dataset.description is not None
        assert dataset.description["tile_px"] == 16
        assert not dataset.description.keys() & {"name", "folder"}
        assert (dataset.hidden, dataset.pixel_size_from) == (False, "request")


def test_the_digest_of_pixels_ignores_containers_names_and_masks(api: httpx.Client) -> None:
    stack = np.stack([grey(1), grey(2)])
    several = registered(
        upload(api, {"a.png": png(stack[0]), "b.png": png(stack[1])}, {"a.png": png(mask())})
    )
    one = registered(upload(api, {"volume.tif": tiff(stack)}, pixel_size_nm=8.0))
    turned = registered(upload(api, {"volume.tif": tiff(stack[::-1])}))
    assert several["pixels_digest"] == one["pixels_digest"] != turned["pixels_digest"]
    assert several["digest"] != one["digest"]


def test_the_same_content_again_is_the_first_dataset(
    register: Register, database: Database, settings: Settings
) -> None:
    first, second = register(), register()
    assert first.new
    assert second == Registered(first.dataset_id, new=False)
    assert counted(database, Dataset) == 1
    assert folders(settings) == {str(first.dataset_id)}
    assert register(fields={"name": "another"}).new
    assert register(fields={"pixel_size_nm": 5.0}).new


def test_a_request_that_is_sent_again_is_answered_with_the_first_dataset(
    api: httpx.Client,
) -> None:
    first = registered(upload(api, {"a.png": png(grey(1))}))
    again = upload(api, {"a.png": png(grey(1))})
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    assert again.headers["location"] == f"/datasets/{first['id']}"
    assert [note["code"] for note in again.json()["notes"]] == ["registered_before"]
    assert first["notes"] == api.get(f"/datasets/{first['id']}").json()["notes"] == []


def test_equal_requests_at_once_make_one_dataset(
    api: httpx.Client, database: Database, settings: Settings
) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: upload(api, {"a.png": png(grey(1))}), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    (only,) = {answer.json()["id"] for answer in answers}
    assert counted(database, Dataset) == 1
    assert counted(database, Image) == 1
    assert folders(settings) == {only}


def test_a_deleted_dataset_can_be_registered_again(
    register: Register, api: httpx.Client, database: Database
) -> None:
    first = register()
    assert api.delete(f"/datasets/{first.dataset_id}").status_code == 204
    wait_for(lambda: counted(database, Image) == 0, "the end of its images")
    second = register()
    assert second.new
    assert second.dataset_id != first.dataset_id


def test_a_registration_that_cannot_complete_leaves_nothing(
    register: Register, database: Database, settings: Settings
) -> None:
    def fail(_session: Session, _found: Registered) -> None:
        raise RuntimeError("not now")

    with pytest.raises(RuntimeError):
        register(complete=fail)
    assert counted(database, Dataset) == counted(database, Image) == 0
    assert folders(settings) == set()


def test_what_completes_it_is_seen_together_with_the_dataset(
    register: Register, database: Database
) -> None:
    def label(session: Session, found: Registered) -> None:
        session.get_one(Image, (found.dataset_id, 0)).labels = {"organelle": "present"}

    found = register(complete=label)
    with database.reading() as session:
        assert session.get_one(Image, (found.dataset_id, 0)).labels == {"organelle": "present"}


def test_a_hidden_dataset_is_seen_by_nobody(
    register: Register, api: httpx.Client, database: Database
) -> None:
    found = register()
    path = f"/datasets/{found.dataset_id}"
    with database.session() as session:
        session.get_one(Dataset, found.dataset_id).hidden = True
        session.commit()
    assert api.get("/datasets").json()["items"] == []
    for where in (path, f"{path}/images", f"{path}/images/0", f"{path}/labels"):
        problem(api.get(where), 404)
    problem(api.delete(path), 404)
    problem(api.post("/jobs/pretrain", json={"source": str(found.dataset_id)}), 404)
    rows.delete_hidden(database, found.dataset_id)
    assert counted(database, Dataset) == counted(database, Image) == 0


def test_a_dataset_that_is_shown_is_never_deleted_as_hidden(
    register: Register, database: Database
) -> None:
    found = register()
    with database.session() as session:
        assert not session.get_one(Dataset, found.dataset_id).hidden
    with pytest.raises(AssertionError):
        rows.delete_hidden(database, UUID(str(found.dataset_id)))
    assert counted(database, Image) == 12 * 2
