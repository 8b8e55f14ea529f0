"""Registrations: at once or by a job, and once however often the request comes."""

import io
import json
import socket
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest
from sqlalchemy import select

from app.database import Database
from app.settings import Settings
from app.tables import Dataset, IdempotencyKey, Job, JobKind, JobState, Lane
from tests.app.conftest import Serve
from tests.app.files import METADATA, Folder, grey, png, registered, tiff, write_zarr, wrong
from tests.processes import wait_for

ASYNC = {"Prefer": "return=minimal, respond-async"}
IMAGE = {"a.png": png(grey(1))}


def send(
    api: httpx.Client, images: dict[str, bytes], headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    files = [("images", item) for item in images.items()]
    data = {"metadata": json.dumps(METADATA | more)}
    return api.post("/datasets", data=data, files=files, headers=headers)


def job_of(response: httpx.Response) -> dict[str, Any]:
    """The job of an answer, which must have been accepted."""
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/jobs/{job['id']}"
    return job


def end(database: Database, job: str, state: JobState, dataset: str | None = None) -> None:
    with database.session() as session:
        row = session.get_one(Job, UUID(job))
        row.state, row.result = state, None if dataset is None else {"dataset": dataset}
        session.commit()


@pytest.fixture
def small(settings: Settings, serve: Serve) -> httpx.Client:
    """A service that registers no more than 10,000 bytes within a request."""
    return serve(settings.model_copy(update={"register_now_bytes": 10_000}))


def test_a_client_that_does_not_wait_gets_a_job(api: httpx.Client, database: Database) -> None:
    job = job_of(send(api, IMAGE, ASYNC, tile_px=16))
    assert (job["kind"], job["lane"], job["state"]) == (JobKind.REGISTER, Lane.DATA, "queued")
    assert (job["source"], job["result"], job["config"]) == (None, None, {})
    assert api.get(f"/jobs/{job['id']}").json() == job
    with database.reading() as session:
        plan = session.get_one(Job, UUID(job["id"])).plan
    assert plan is not None
    assert plan["request"]["tile_px"] == 16
    assert [file["name"] for file in plan["files"]] == ["a.png"]
    assert api.get("/datasets").json()["items"] == []


def test_files_sent_are_kept_for_the_job_alone(api: httpx.Client, settings: Settings) -> None:
    job = job_of(send(api, IMAGE, ASYNC))
    kept = [path for path in settings.data_folder.rglob("*") if path.is_file()]
    kept = [path for path in kept if path.parent.name == "upload"]
    assert [path.read_bytes() for path in kept] == [IMAGE["a.png"]]
    assert kept[0].is_relative_to(settings.data_folder / "jobs" / job["id"])
    assert list((settings.data_folder / "incoming").iterdir()) == []
    registered(send(api, IMAGE, name="at once"))
    assert list((settings.data_folder / "incoming").iterdir()) == []


def test_large_files_are_registered_by_a_job(small: httpx.Client, folder: Folder) -> None:
    noise = {"a.png": png(grey(1, 200, 200))}
    job_of(send(small, noise))
    registered(send(small, IMAGE))
    folder.image("a.png", noise["a.png"])
    job_of(folder.register(small))
    (folder.path / "images" / "a.png").unlink()
    write_zarr(folder.path / "images.zarr", grey(1, 200, 200))
    job_of(folder.register(small, name="a Zarr folder"))


def test_small_files_of_many_pixels_are_registered_by_a_job(
    small: httpx.Client, settings: Settings, database: Database
) -> None:
    """How long a registration takes is told by the pixels, too."""
    packed = tiff(np.zeros((2, 90, 90), np.uint8) + np.arange(2, dtype=np.uint8)[:, None, None])
    squeezed = io.BytesIO()
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.tif", packed)
    assert len(squeezed.getvalue()) < 1000
    job = job_of(send(small, {"a.zip": squeezed.getvalue()}, intensity_window=[0, 255]))
    assert (settings.data_folder / "jobs" / job["id"] / "upload").is_dir()
    assert list((settings.data_folder / "datasets").iterdir()) == []
    assert list((settings.data_folder / "incoming").iterdir()) == []
    with database.reading() as session:
        assert session.scalars(select(Dataset.id)).all() == []


def test_the_same_files_meet_the_job_that_registers_them(
    api: httpx.Client, database: Database
) -> None:
    first = job_of(send(api, IMAGE, ASYNC))
    assert job_of(send(api, IMAGE))["id"] == first["id"]
    assert job_of(send(api, IMAGE, ASYNC, name="another"))["id"] != first["id"]
    end(database, first["id"], JobState.FAILED)
    second = job_of(send(api, IMAGE, ASYNC))
    assert second["id"] != first["id"]
    dataset = registered(send(api, {"b.png": png(grey(2))}))["id"]
    end(database, second["id"], JobState.SUCCEEDED, dataset)
    again = send(api, IMAGE, ASYNC)
    assert (again.status_code, again.json()["id"]) == (200, dataset)
    assert api.delete(f"/datasets/{dataset}").status_code == 204
    assert job_of(send(api, IMAGE, ASYNC))["id"] not in (first["id"], second["id"])


def test_equal_uploads_at_once_make_one_job(
    api: httpx.Client, settings: Settings, database: Database
) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: send(api, IMAGE, ASYNC), range(6)))
    (only,) = {job_of(answer)["id"] for answer in answers}
    assert [path.name for path in (settings.data_folder / "jobs").iterdir()] == [only]
    with database.reading() as session:
        assert [str(job) for job in session.scalars(select(Job.id))] == [only]


def test_a_key_stands_for_the_first_answer(api: httpx.Client, database: Database) -> None:
    key = {"Idempotency-Key": "mine"}
    first = registered(send(api, IMAGE, key))
    again = send(api, IMAGE, key)
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    other = send(api, {"a.png": png(grey(2))}, key)
    assert list(wrong(other)) == ["header.Idempotency-Key"]
    assert list(wrong(send(api, IMAGE, key, name="another"))) == ["header.Idempotency-Key"]
    assert api.delete(f"/datasets/{first['id']}").status_code == 204
    with database.reading() as session:
        assert session.get(IdempotencyKey, "mine") is None
    assert registered(send(api, IMAGE, key))["id"] != first["id"]


def test_a_key_stands_for_the_job_of_a_registration(api: httpx.Client, database: Database) -> None:
    key = {"Idempotency-Key": "mine"}
    first = job_of(send(api, IMAGE, ASYNC | key))
    assert job_of(send(api, IMAGE, key))["id"] == first["id"]
    end(database, first["id"], JobState.CANCELLED)
    assert job_of(send(api, IMAGE, key))["id"] == first["id"]
    body = {"preset": "smoke", "source": str(UUID(int=0))}
    assert list(wrong(api.post("/jobs/pretrain", json=body, headers=key))) == [
        "header.Idempotency-Key"
    ]


def test_a_key_is_kept_only_with_what_it_stands_for(api: httpx.Client, database: Database) -> None:
    refused = send(api, {"a.png": b"no picture"}, {"Idempotency-Key": "mine"})
    assert "images/a.png" in wrong(refused)
    with database.reading() as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == []
    registered(send(api, IMAGE, {"Idempotency-Key": "mine"}))


@contextmanager
def _sent(
    api: httpx.Client, headers: dict[str, str], keep: Callable[[bytes], bytes]
) -> Iterator[None]:
    """Send a request; break the connection at the end of the block, without reading the answer."""
    files = [("images", item) for item in IMAGE.items()]
    request = api.build_request(
        "POST", "/datasets", data={"metadata": json.dumps(METADATA)}, files=files, headers=headers
    )
    request.read()
    head = b"POST /datasets HTTP/1.1\r\n"
    head += b"".join(b"%s: %s\r\n" % pair for pair in request.headers.raw) + b"\r\n"
    with socket.create_connection((api.base_url.host, api.base_url.port or 80)) as connection:
        connection.sendall(head + keep(request.content))
        yield


@pytest.mark.parametrize("headers", [{}, ASYNC], ids=["at once", "by a job"])
def test_a_request_whose_answer_is_lost_may_be_sent_again(
    api: httpx.Client, database: Database, headers: dict[str, str]
) -> None:
    def ids() -> list[UUID]:
        with database.reading() as session:
            made = select(Job.id) if headers else select(Dataset.id).where(~Dataset.hidden)
            return [*session.scalars(made)]

    with _sent(api, headers, lambda body: body):
        (first,) = wait_for(ids, "what the lost request made")
    again = send(api, IMAGE, headers)
    assert again.status_code == (202 if headers else 200)
    assert again.json()["id"] == str(first)
    assert ids() == [first]


def test_an_upload_that_breaks_off_leaves_nothing(
    api: httpx.Client, settings: Settings, database: Database
) -> None:
    incoming = settings.data_folder / "incoming"
    with _sent(api, {}, lambda body: body[:-200]):
        wait_for(lambda: any(incoming.iterdir()), "the start of the upload")
    wait_for(lambda: not any(incoming.iterdir()), "an empty folder")
    with database.reading() as session:
        assert session.scalars(select(Dataset.id)).all() == []


def test_files_of_the_same_name_and_other_content_are_another_request(api: httpx.Client) -> None:
    first = job_of(send(api, IMAGE, ASYNC))
    assert job_of(send(api, {"a.png": png(grey(2))}, ASYNC))["id"] != first["id"]
