"""Jobs over HTTP after their submission: cancelled, paused, resumed, retried, moved, listed."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select, update

from app.database import Database, now_plus
from app.jobs import service, submission
from app.jobs.checks import Context
from app.jobs.queue import JobQueue
from app.jobs.reconciler import Reconciler
from app.jobs.request_schemas import PretrainRequest
from app.jobs.transitions import Lease, claim, hand_back
from app.settings import Settings
from app.storage import Storage
from app.tables import IdempotencyKey, Job, JobKind, JobStage, JobState, MetricPoint
from tests.app.files import grey, mask, png, problem, registered, upload, wrong
from tests.app.jobs.requests import accepted, submit
from tests.app.records import add_job, add_model


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
    assert again["code"] == "conflict"
    assert "running" in again["detail"]


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
    # The other key is that of the dataset.
    assert (count(database, Job), count(database, IdempotencyKey)) == (1, 2)


def test_a_refused_submission_leaves_its_key_free(
    api: httpx.Client, database: Database, source: str
) -> None:
    wrong(sent(api, source, "mine", after=[str(uuid4())]))
    assert (count(database, Job), count(database, IdempotencyKey)) == (0, 1)
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
        kept = session.scalars(select(IdempotencyKey.key)).all()
    assert [key for key in kept if not key.startswith("content:")] == ["new"]


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


def test_cancel_of_a_queued_job(api: httpx.Client, source: str) -> None:
    job = accepted(submit(api, "pretrain", source=source))
    cancelled = api.post(f"/jobs/{job['id']}/cancel")
    assert cancelled.status_code == 202
    assert cancelled.json()["state"] == "cancelled"
    assert cancelled.json()["finished_at"] is not None
    again = problem(api.post(f"/jobs/{job['id']}/cancel"), 409)
    assert again["code"] == "conflict"
    assert job["id"] in again["detail"]
    problem(api.post(f"/jobs/{uuid4()}/cancel"), 404)


def test_cancel_of_a_running_and_of_ended_jobs(
    api: httpx.Client, database: Database, source: str
) -> None:
    running = add_job(database, source, state=JobState.RUNNING)
    for _ in range(2):  # asked twice, it still only waits for its trainer
        response = api.post(f"/jobs/{running}/cancel")
        assert (response.status_code, response.json()["state"]) == (202, "cancelling")
        assert response.json()["finished_at"] is None
    for state in (JobState.SUCCEEDED, JobState.FAILED):
        ended = add_job(database, source, state=state)
        assert state in problem(api.post(f"/jobs/{ended}/cancel"), 409)["detail"]


def test_cancel_while_the_job_is_given_back(
    api: httpx.Client, database: Database, source: str
) -> None:
    running = add_job(database, source, state=JobState.RUNNING, attempt=1)
    answers: list[httpx.Response] = []
    cancel = threading.Thread(target=lambda: answers.append(api.post(f"/jobs/{running}/cancel")))
    with database.session() as session:
        assert hand_back(session, Lease(running, 1))
        cancel.start()
        cancel.join(0.3)
        session.commit()
    cancel.join()
    assert (answers[0].status_code, answers[0].json()["state"]) == (202, "cancelled")


def test_what_is_read_after_a_commit_keeps_no_writer_waiting(
    settings: Settings, database: Database, source: str
) -> None:
    queue = JobQueue(settings)
    with database.session() as first, database.session() as second:
        request = PretrainRequest(source=UUID(source))
        job = submission.submit(Context(first, settings), queue, request)
        # Would wait, and fail after 30 s, for the other session.
        assert service.cancel(second, job.id).state == "cancelled"
        with database.session() as third:
            third.execute(update(Job).values(step=1))
            third.commit()
    queue.close()


def test_progress_results_and_errors_are_told(
    api: httpx.Client, database: Database, source: str, target: str
) -> None:
    evaluation = {
        "method": "StyleFilter",
        "dataset": target,
        "split": "test",
        "num_sections": 2,
        "dice": {"background": 0.9, "organelle": None},
        "mean_dice": 0.9,
        "confusion": [[5, 0], [1, 0]],
    }
    running = add_job(
        database,
        source,
        target,
        state=JobState.RUNNING,
        stage="pretrain",
        step=30,
        total=90,
        steps_per_second=4.0,
    )
    earlier = add_job(database, source)
    reused = add_model(database, earlier, source)
    taken = {"kind": "segmenter", "model": str(reused), "job": str(earlier)}
    result = {
        "evaluations": [evaluation],
        "reused": [taken],
        "notes": ["n"],
        "changed": ["c"],
        "peak_memory_bytes": 9,
    }
    done = add_job(database, source, target, result=result)
    model = add_model(database, done, source, kind="stylefilter")
    failed = add_job(
        database,
        source,
        state=JobState.FAILED,
        error_code="worker_lost",
        error_message="The worker fell silent.",
        error_traceback="Traceback (most recent call last): ...",
    )
    with database.session() as session:
        for position, (stage, step) in enumerate([("style", 4), ("pretrain", 30)]):
            session.add(
                JobStage(
                    job_id=running,
                    stage=stage,
                    position=position,
                    step=step,
                    total=4 if stage == "style" else 90,
                    seconds=1.5,
                    finished=stage == "style",
                )
            )
        session.commit()
    body = api.get(f"/jobs/{running}").json()
    assert (body["stage"], body["step"], body["total"]) == ("pretrain", 30, 90)
    assert (body["steps_per_second"], body["eta_seconds"]) == (4.0, 15.0)
    assert body["stages"] == [
        {"stage": "style", "step": 4, "total": 4, "seconds": 1.5, "finished": True},
        {"stage": "pretrain", "step": 30, "total": 90, "seconds": 1.5, "finished": False},
    ]
    body = api.get(f"/jobs/{done}").json()
    assert body["result"] == result
    assert (body["models"], body["eta_seconds"]) == ([str(reused), str(model)], None)
    body = api.get(f"/jobs/{failed}").json()
    assert body["error"] == {
        "code": "worker_lost",
        "message": "The worker fell silent.",
        "traceback": "Traceback (most recent call last): ...",
    }


def test_metrics_are_grouped_in_series(api: httpx.Client, database: Database, source: str) -> None:
    job, other = add_job(database, source), add_job(database, source)
    points = [
        (job, "pretrain", "loss", 10, 0.5),
        (job, "pretrain", "loss", 2, 0.75),
        (job, "pretrain", "dice/mean", 10, 0.25),
        (job, "adapt", "loss", 1, 3.0),
        (other, "adapt", "loss", 2, 4.0),
    ]
    with database.session() as session:
        for of_job, stage, name, step, value in points:
            session.add(MetricPoint(job_id=of_job, stage=stage, name=name, step=step, value=value))
        session.commit()
    path = f"/jobs/{job}/metrics"
    whole = {"thinned": False}
    adapt = {"stage": "adapt", "name": "loss", "steps": [1], "values": [3.0], **whole}
    dice = {"stage": "pretrain", "name": "dice/mean", "steps": [10], "values": [0.25], **whole}
    loss = {"stage": "pretrain", "name": "loss", "steps": [2, 10], "values": [0.75, 0.5], **whole}
    assert api.get(path).json() == {"series": [adapt, dice, loss]}
    assert api.get(path, params={"stage": "pretrain"}).json() == {"series": [dice, loss]}
    assert api.get(path, params={"name": "loss"}).json() == {"series": [adapt, loss]}
    assert api.get(path, params={"name": "nothing"}).json() == {"series": []}
    assert list(wrong(api.get(path, params={"name": "a\0"}))) == ["query.name"]
    problem(api.get(f"/jobs/{uuid4()}/metrics"), 404)


def test_jobs_are_listed_by_state_and_page_while_new_ones_come(
    api: httpx.Client, database: Database, source: str
) -> None:
    queued = [str(add_job(database, source, state=JobState.QUEUED)) for _ in range(3)]
    failed = str(add_job(database, source, state=JobState.FAILED, kind=JobKind.PRETRAIN))
    first = api.get("/jobs", params={"state": "queued", "limit": 2}).json()
    add_job(database, source, state=JobState.QUEUED)
    query = {"state": "queued", "cursor": first["next"]}
    second = api.get("/jobs", params=query).json()
    assert [job["id"] for job in first["items"] + second["items"]] == queued[::-1]
    assert second["next"] is None
    for other in ({}, {"state": "failed"}, {"state": "queued", "parent": failed}):
        assert list(wrong(api.get("/jobs", params=other | {"cursor": first["next"]}))) == [
            "query.cursor"
        ]
    assert [job["id"] for job in api.get("/jobs", params={"state": "failed"}).json()["items"]] == [
        failed
    ]
    assert len(api.get("/jobs").json()["items"]) == 5
    assert list(wrong(api.get("/jobs", params={"state": "done"}))) == ["query.state"]
