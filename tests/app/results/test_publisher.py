"""Results are published from real rows and folders to a real S3 server."""

import json
from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select, update

from app.database import Database, now_plus
from app.results import publications
from app.results.folder import SUMS
from app.results.publisher import JOB_FILE, Publisher
from app.settings import Settings
from app.storage import Storage
from app.tables import JobState, Publication
from models.data.readers import remote_store
from tests.app.conftest import Serve
from tests.app.records import add_waiting
from tests.app.scrape import samples
from tests.processes import wait_for
from tests.s3 import S3Server


@pytest.fixture
def publisher(s3: S3Server, database: Database, storage: Storage) -> Iterator[Publisher]:
    del s3
    return Publisher(database, storage, "s3://cells/em")


def add(database: Database, storage: Storage) -> UUID:
    """A job that has succeeded in its second attempt, and left one model."""
    result = {"notes": ["A note."]}
    job_id = add_waiting(database, state=JobState.SUCCEEDED, attempt=2, result=result)
    for attempt in (1, 2):
        folder = storage.attempt(job_id, attempt) / "segmenter"
        folder.mkdir(parents=True)
        (folder / "weights.safetensors").write_text(f"of attempt {attempt}")
    with database.session() as session:
        publications.ask(session, [job_id])
        session.commit()
    return job_id


def row(database: Database, job_id: UUID) -> Publication:
    with database.reading() as session:
        return session.get_one(Publication, job_id)


def pause(database: Database) -> float:
    with database.reading() as session:
        at, now = session.execute(select(Publication.next_at, now_plus())).one()
    return float((at - now).total_seconds())


def make_due(database: Database) -> None:
    with database.session() as session:
        session.execute(update(Publication).values(next_at=now_plus(-1)))
        session.commit()


def objects(s3: S3Server) -> dict[str, bytes]:
    listed = s3.client.list_objects_v2(Bucket="cells").get("Contents", [])
    keys = [each["Key"] for each in listed]
    return {key: s3.client.get_object(Bucket="cells", Key=key)["Body"].read() for key in keys}


def test_the_last_attempts_files_and_the_jobs_answer_are_published(
    database: Database, storage: Storage, s3: S3Server, publisher: Publisher
) -> None:
    job_id = add(database, storage)
    assert [publisher.publish_next() for _ in range(2)] == [True, False]
    found = objects(s3)
    start = f"em/{job_id}"
    names = (JOB_FILE, SUMS, "segmenter/weights.safetensors")
    assert set(found) == {f"{start}/{name}" for name in names}
    assert found[f"{start}/segmenter/weights.safetensors"] == b"of attempt 2"
    told = json.loads(found[f"{start}/{JOB_FILE}"])
    assert (told["id"], told["state"], told["result"]) == (
        str(job_id),
        "succeeded",
        {"notes": ["A note."]},
    )
    published = row(database, job_id)
    assert (published.url, published.attempts) == (f"s3://cells/{start}", 1)
    assert (published.next_at, published.problem) == (None, None)


def test_a_place_that_is_away_is_tried_again_with_growing_pauses(
    database: Database,
    storage: Storage,
    s3: S3Server,
    publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = add(database, storage)
    monkeypatch.setattr(remote_store, "RETRIES", {"max_retries": 0})
    pauses = []
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        for _ in range(3):
            make_due(database)
            assert publisher.publish_next()
            assert not publisher.publish_next()
            pauses.append(pause(database))
    assert pauses == pytest.approx([10, 20, 40], abs=2)
    problem = row(database, job_id).problem
    assert problem is not None
    assert "no connection" in problem
    make_due(database)
    assert publisher.publish_next()
    assert (row(database, job_id).problem, row(database, job_id).attempts) == (None, 4)
    assert len(objects(s3)) == 3


@pytest.mark.parametrize(
    ("endpoint", "said"), [("no address", "AWS_ENDPOINT_URL"), (None, "restore")]
)
def test_what_is_wrong_is_told_without_a_path_and_the_thread_goes_on(
    database: Database,
    storage: Storage,
    publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str | None,
    said: str,
) -> None:
    job_id = add(database, storage)
    if endpoint is None:
        storage.remove(storage.job(job_id))
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert publisher.publish_next()
    problem = row(database, job_id).problem
    assert problem is not None
    assert said in problem
    assert str(storage.folder) not in problem


def test_after_many_tries_the_pause_is_an_hour(
    database: Database, storage: Storage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("disk")
    publisher = Publisher(database, storage, str(folder / "not-mounted"))
    add(database, storage)
    with database.session() as session:
        session.execute(update(Publication).values(attempts=5000))
        session.commit()
    assert publisher.publish_next()
    assert pause(database) == pytest.approx(3600, abs=2)


def test_what_a_killed_process_began_is_taken_up_when_its_time_is_over(
    database: Database, storage: Storage, s3: S3Server, publisher: Publisher
) -> None:
    job_id = add(database, storage)
    assert publisher._take() is not None  # and never comes back
    assert not publisher.publish_next()
    assert pause(database) == pytest.approx(600, abs=2)
    make_due(database)
    assert publisher.publish_next()
    assert row(database, job_id).attempts == 2
    assert len(objects(s3)) == 3


def test_a_publisher_that_stops_gives_its_row_back(
    database: Database, storage: Storage, s3: S3Server, publisher: Publisher
) -> None:
    job_id = add(database, storage)
    publisher._stop.set()
    assert publisher.publish_next()
    assert (row(database, job_id).url, objects(s3)) == (None, {})
    assert pause(database) <= 0


def test_one_whose_row_was_taken_by_another_stops_and_changes_nothing(
    database: Database, storage: Storage, publisher: Publisher
) -> None:
    job_id = add(database, storage)
    slow = publisher._take()
    assert slow is not None
    make_due(database)
    assert publisher._take() is not None
    assert not publisher._change(slow, url="s3://elsewhere")
    assert row(database, job_id).url is None


def test_asking_twice_makes_one_row(database: Database, storage: Storage) -> None:
    job_id = add(database, storage)
    with database.session() as session:
        publications.ask(session, [job_id, job_id])
        session.commit()
    with database.reading() as session:
        assert len(session.scalars(select(Publication)).all()) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_service_publishes_and_its_answer_says_where(
    settings: Settings, database: Database, storage: Storage, serve: Serve, s3: S3Server
) -> None:
    job_id = add(database, storage)
    with database.session() as session:
        session.execute(update(Publication).values(next_at=now_plus(3600)))
        session.commit()
    api = serve(settings.model_copy(update={"results_url": "s3://cells/em"}))
    assert samples(api)["stylefilter_results_waiting", ""] == 1
    assert _published(api, job_id) == {"url": None, "attempts": 0, "problem": None}
    make_due(database)
    wait_for(lambda: _published(api, job_id)["url"], "the copy")
    assert _published(api, job_id)["url"] == f"s3://cells/em/{job_id}"
    assert samples(api)["stylefilter_results_waiting", ""] == 0
    assert f"em/{job_id}/{SUMS}" in objects(s3)


def _published(api: httpx.Client, job_id: UUID) -> dict[str, object]:
    published = api.get(f"/jobs/{job_id}").json()["published"]
    assert isinstance(published, dict)
    return published


def test_a_job_whose_results_are_not_published_says_nothing(
    api: httpx.Client, database: Database
) -> None:
    job_id = add_waiting(database)
    assert api.get(f"/jobs/{job_id}").json()["published"] is None
