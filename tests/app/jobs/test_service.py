"""Jobs over HTTP after their submission: paused, resumed, retried, moved, sent twice."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select, update

from app.database import Database, now_plus
from app.jobs.queue import JobQueue
from app.jobs.reconciler import Reconciler
from app.jobs.transitions import Lease, claim, hand_back
from app.settings import Settings
from app.storage import Storage
from app.tables import IdempotencyKey, Job, JobState
from tests.app.files import grey, mask, png, problem, registered, upload, wrong
from tests.app.records import add_job


@pytest.fixture
def source(api: httpx.Client) -> str:
    return str(registered(upload(api, {"s.png": png(grey(1))}, {"s.png": png(mask())}))["id"])


@pytest.fixture
def reconciler(settings: Settings, database: Database) -> Iterator[Reconciler]:
    queue = JobQueue(settings)
    yield Reconciler(database, Storage(settings.data_folder), queue, settings)
    queue.close()


def submitted(
    api: httpx.Client, source: str, key: str | None = None, **body: Any
) -> dict[str, Any]:
    answer = sent(api, source, key, **body)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def sent(api: httpx.Client, source: str, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    request = {"source": source, "preset": "smoke"} | body
    return api.post("/jobs/pretrain", json=request, headers=headers)


def asked(api: httpx.Client, job_id: str, what: str) -> str:
    answer = api.post(f"/jobs/{job_id}/{what}")
    assert answer.status_code == 202, answer.text
    return str(answer.json()["state"])


def messages(settings: Settings) -> int:
    return len(list((settings.data_folder / "broker" / "messages").iterdir()))


def test_a_waiting_job_is_paused_and_resumed(
    api: httpx.Client, database: Database, settings: Settings, source: str
) -> None:
    job_id = submitted(api, source)["id"]
    assert asked(api, job_id, "pause") == "paused"
    assert claim(database, "here", 60) is None
    before = messages(settings)
    assert asked(api, job_id, "resume") == "queued"
    assert messages(settings) == before + 1  # the doorbell rang
    assert claim(database, "here", 60) == Lease(UUID(job_id), 1)
    again = problem(api.post(f"/jobs/{job_id}/resume"), 409)
    assert again["detail"] == f"job {job_id} is running: it cannot be resumed"


def test_a_running_job_is_pausing_until_its_worker_lets_go(
    api: httpx.Client, database: Database, source: str
) -> None:
    job_id = submitted(api, source)["id"]
    lease = claim(database, "here", 60)
    assert lease is not None
    assert asked(api, job_id, "pause") == "pausing"
    with database.session() as session:
        hand_back(session, lease)
        session.commit()
    assert api.get(f"/jobs/{job_id}").json()["state"] == "paused"
    assert asked(api, job_id, "cancel") == "cancelled"


def test_a_failed_job_is_retried_and_others_are_not(
    api: httpx.Client, database: Database, settings: Settings, source: str
) -> None:
    failed = add_job(
        database,
        source,
        state=JobState.FAILED,
        lost_attempts=5,
        error_code="worker_lost",
        attempt=5,
    )
    before = messages(settings)
    job = api.post(f"/jobs/{failed}/retry").json()
    assert (job["state"], job["error"], job["lost_attempts"], job["attempt"]) == (
        "queued",
        None,
        0,
        5,
    )
    assert job["finished_at"] is None
    assert messages(settings) == before + 1
    assert "cannot be retried" in problem(api.post(f"/jobs/{failed}/retry"), 409)["detail"]
    for what in ("pause", "resume", "retry", "cancel"):
        problem(api.post(f"/jobs/{uuid4()}/{what}"), 404)


def test_the_priority_decides_and_may_change(
    api: httpx.Client, database: Database, source: str
) -> None:
    first, second, third = (submitted(api, source, priority=p)["id"] for p in (0, 3, 0))
    changed = api.patch(f"/jobs/{third}", json={"priority": 9})
    assert (changed.status_code, changed.json()["priority"]) == (200, 9)
    order = [claim(database, "here", 60) for _ in range(3)]
    assert [str(lease.job_id) for lease in order if lease] == [third, second, first]
    assert list(wrong(api.patch(f"/jobs/{first}", json={"priority": 101}))) == ["body.priority"]
    assert list(wrong(sent(api, source, priority=-101))) == ["body.priority"]
    asked(api, submitted(api, source)["id"], "cancel")
    ended = add_job(database, source)
    problem(api.patch(f"/jobs/{ended}", json={"priority": 1}), 409)


def test_a_job_waits_for_others_and_says_so(
    api: httpx.Client, database: Database, reconciler: Reconciler, source: str
) -> None:
    needed = submitted(api, source)["id"]
    job = submitted(api, source, priority=5, after=[needed, needed])
    assert job["after"] == [needed]
    lease = claim(database, "here", 60)
    assert lease is not None
    assert str(lease.job_id) == needed
    assert claim(database, "here", 60) is None
    asked(api, needed, "cancel")
    with database.session() as session:
        hand_back(session, lease)
        session.commit()
    reconciler.reconcile()
    ended = api.get(f"/jobs/{job['id']}").json()
    assert (ended["state"], ended["error"]["code"]) == ("failed", "dependency_failed")
    unknown = str(uuid4())
    assert list(wrong(sent(api, source, after=[needed, needed, unknown]))) == ["body.after.2"]


def test_the_limit_of_attempts_is_the_services_or_the_jobs(
    api: httpx.Client, settings: Settings, source: str
) -> None:
    assert submitted(api, source)["max_attempts"] == settings.max_attempts == 5
    assert submitted(api, source, max_attempts=2)["max_attempts"] == 2
    assert list(wrong(sent(api, source, max_attempts=0))) == ["body.max_attempts"]


# --- Idempotency-Key ------------------------------------------------------------------------------


def count(database: Database, table: type[Job] | type[IdempotencyKey]) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_key_sent_twice_makes_one_job(api: httpx.Client, database: Database, source: str) -> None:
    first = sent(api, source, "mine", priority=1)
    asked(api, first.json()["id"], "cancel")
    second = sent(api, source, "mine", priority=1)
    assert (second.status_code, second.headers["location"]) == (202, first.headers["location"])
    assert second.json()["state"] == "cancelled"  # as it is now
    assert sent(api, source, "other", priority=1).json()["id"] != first.json()["id"]
    assert count(database, Job) == 2


def test_a_key_with_another_request_is_refused(
    api: httpx.Client, database: Database, source: str
) -> None:
    submitted(api, source, "mine")
    assert list(wrong(sent(api, source, "mine", priority=1))) == ["header.Idempotency-Key"]
    assert count(database, Job) == 1
    assert list(wrong(sent(api, source, "x" * 256))) == ["header.Idempotency-Key"]


def test_a_key_sent_at_once_makes_one_job(
    api: httpx.Client, database: Database, source: str
) -> None:
    barrier = Barrier(8)

    def send(_: int) -> str:
        barrier.wait()
        return str(submitted(api, source, "mine")["id"])

    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(send, range(8)))
    assert len(ids) == 1
    assert (count(database, Job), count(database, IdempotencyKey)) == (1, 1)


def test_a_refused_submission_leaves_its_key_free(
    api: httpx.Client, database: Database, source: str
) -> None:
    wrong(sent(api, source, "mine", after=[str(uuid4())]))
    assert (count(database, Job), count(database, IdempotencyKey)) == (0, 0)
    submitted(api, source, "mine")


def test_keys_are_forgotten_after_a_day(
    api: httpx.Client, database: Database, reconciler: Reconciler, source: str
) -> None:
    for key in ("old", "new"):
        submitted(api, source, key)
    with database.session() as session:
        old = update(IdempotencyKey).where(IdempotencyKey.key == "old")
        session.execute(old.values(created_at=now_plus(-24 * 3600 - 1)))
        session.commit()
    reconciler.reconcile()
    with database.reading() as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == ["new"]


# --- pictures -------------------------------------------------------------------------------------


def test_a_picture_is_answered_by_its_name_and_nothing_else_is(
    api: httpx.Client, database: Database, settings: Settings, source: str
) -> None:
    job_id = add_job(database, source)
    folder = Storage(settings.data_folder).pictures(job_id)
    folder.mkdir(parents=True)
    (folder / "style-1-1.png").write_bytes(png(grey(1)))
    (folder / "secret.txt").write_text("secret")
    answer = api.get(f"/jobs/{job_id}/pictures/style-1-1.png")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == png(grey(1))
    problem(api.get(f"/jobs/{job_id}/pictures/style-2-1.png"), 404)
    problem(api.get(f"/jobs/{uuid4()}/pictures/style-1-1.png"), 404)
    for name in ("secret.txt", "..%2fsecret-1-1.png", ".style-1-1.png"):
        assert api.get(f"/jobs/{job_id}/pictures/{name}").status_code in (404, 422)
