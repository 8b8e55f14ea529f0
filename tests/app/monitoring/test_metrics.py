"""Metrics: requests by route, jobs by state, and how long they wait."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import httpx
import pytest
from sqlalchemy import delete, select, update

from app.database import Database, now_plus
from app.jobs import orders, transitions
from app.tables import Job, JobDependency, JobEvent, JobStage, JobState, Lane
from models.choice.verdict import Outcome
from tests.app.files import grey, png, registered, upload
from tests.app.records import add_job, add_waiting
from tests.app.scrape import samples

QUEUE_AGE = "stylefilter_queue_age_seconds"


def test_requests_are_counted_by_route_template(api: httpx.Client) -> None:
    dataset = registered(upload(api, {"a.png": png(grey(1))}))["id"]
    before = samples(api)
    for path in (f"/datasets/{dataset}", f"/datasets/{dataset}/images/0", "/datasets/x", "/.env"):
        api.get(path)
    api.request("BREW", "/datasets")
    after = samples(api)
    name = "stylefilter_http_requests_total"
    counted = {
        labels: after[of, labels] - before.get((of, labels), 0)
        for of, labels in after
        if of == name and after[of, labels] != before.get((of, labels), 0)
    }
    assert counted == {
        "GET /datasets/{dataset_id} 200": 1,
        "GET /datasets/{dataset_id}/images/{n} 200": 1,
        "GET /datasets/{dataset_id} 422": 1,
        "GET unmatched 404": 1,
        "other /datasets 405": 1,
        "GET /metrics 200": 1,
    }
    everything = " ".join(labels for _, labels in after)
    assert not any(raw in everything for raw in (dataset, ".env", "BREW", "/datasets/x"))
    assert after["stylefilter_http_request_duration_seconds_count", "GET /datasets/{dataset_id}"]


def test_jobs_and_stages_are_read_from_the_database(api: httpx.Client, database: Database) -> None:
    empty = samples(api)
    assert {empty["stylefilter_jobs", state] for state in JobState} == {0}
    assert {empty["stylefilter_verdicts", outcome] for outcome in get_args(Outcome)} == {0}
    source = registered(upload(api, {"a.png": png(grey(1))}))["id"]
    old = datetime.now(UTC) - timedelta(seconds=600)
    add_job(database, source, state=JobState.QUEUED, created_at=old)
    add_job(database, source, state=JobState.QUEUED)
    ended, running = JobState.SUCCEEDED, JobState.RUNNING
    cancelled, failed = JobState.CANCELLED, JobState.FAILED
    for seconds, state in ((2.0, ended), (3.5, cancelled), (1.0, failed), (7.0, running)):
        job = add_job(database, source, created_at=old - timedelta(seconds=600), state=state)
        with database.session() as session:
            for stage, finished in (("style", True), ("adapt", False)):
                session.add(
                    JobStage(
                        job_id=job,
                        stage=stage,
                        position=0,
                        step=1,
                        total=1,
                        seconds=seconds,
                        finished=finished,
                    )
                )
            session.commit()
    add_job(database, source, state=failed, result={"verdict": {"outcome": "worse"}})
    for stored in ({"verdict": {"outcome": "worse"}}, {"verdict": None}, {"notes": []}, None):
        add_job(database, source, state=ended, result=stored)
    found = samples(api)
    assert found["stylefilter_verdicts", "worse"] == 1
    assert sum(found["stylefilter_verdicts", outcome] for outcome in get_args(Outcome)) == 1
    assert found["stylefilter_jobs", "queued"] == 2
    assert found["stylefilter_jobs", "succeeded"] == 5
    assert found["stylefilter_jobs", "cancelled"] == 1
    assert found["stylefilter_jobs", "paused"] == 0
    # Those of a job that runs, or may be retried, could yet be forgotten and counted again.
    assert found["stylefilter_stage_duration_seconds_count", "style"] == 2
    assert found["stylefilter_stage_duration_seconds_sum", "style"] == 5.5
    assert ("stylefilter_stage_duration_seconds_count", "adapt") not in found


def ages(api: httpx.Client) -> list[float]:
    """Of the queues of cpu, gpu-infer and gpu-train."""
    found = samples(api)
    return [found[QUEUE_AGE, lane] for lane in ("cpu", "gpu-infer", "gpu-train")]


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=20)


def told(database: Database, job: UUID, *ago: float) -> None:
    """Let the events of a job have happened so many seconds ago, one after the other."""
    events = select(JobEvent.id).where(JobEvent.job_id == job).order_by(JobEvent.id)
    with database.session() as session:
        for event, seconds in zip(session.scalars(events).all(), ago, strict=True):
            at = update(JobEvent).where(JobEvent.id == event)
            session.execute(at.values(created_at=now_plus(-seconds)))
        session.commit()


def change(database: Database, job: UUID, **values: Any) -> None:
    with database.session() as session:
        session.execute(update(Job).where(Job.id == job).values(**values))
        session.commit()


def test_a_queue_is_as_old_as_its_oldest_job_can_be_taken(
    api: httpx.Client, database: Database
) -> None:
    assert ages(api) == [0, 0, 0]
    for lane, *seconds in ((Lane.CPU, 600, 30), (Lane.GPU_TRAIN, 7, 4000)):
        for ago in seconds:
            told(database, add_waiting(database, lane=lane, created_at=now_plus(-9000)), ago)
    assert ages(api) == [about(600), 0, about(4000)]
    # As before there were events.
    with database.session() as session:
        session.execute(update(Job).values(created_at=now_plus(-1000)))
        session.execute(delete(JobEvent))
        session.commit()
    assert ages(api) == [about(1000), 0, about(1000)]


def test_a_job_is_as_old_as_it_last_began_to_wait(api: httpx.Client, database: Database) -> None:
    job = add_waiting(database, created_at=now_plus(-9000))
    lease = transitions.claim(database, "here", 600)
    assert lease is not None
    assert ages(api) == [0, 0, 0]
    with database.session() as session:
        assert transitions.hand_back(session, lease)
        session.commit()
    told(database, job, 9000, 8000, 700)
    assert ages(api) == [about(700), 0, 0]
    with database.session() as session:
        assert orders.set_priority(session, job, 5)
        session.commit()
    assert ages(api) == [about(700), 0, 0]
    with database.session() as session:
        assert orders.pause(session, job)
        session.commit()
    assert ages(api) == [0, 0, 0]
    with database.session() as session:
        assert orders.resume(session, job)
        session.commit()
    assert ages(api) == [about(0), 0, 0]
    told(database, job, 9000, 8000, 700, 600, 500, 80)
    assert ages(api) == [about(80), 0, 0]


def test_an_interrupted_job_waits_when_its_pause_is_over(
    api: httpx.Client, database: Database
) -> None:
    job = add_waiting(database, created_at=now_plus(-9000))
    lease = transitions.claim(database, "here", 600)
    assert lease is not None
    with database.session() as session:
        assert transitions.lose(session, lease, transitions.Failure("odd", "It is odd."))
        session.commit()
    told(database, job, 9000, 8000, 500)
    change(database, job, not_before=now_plus(100))
    assert ages(api) == [0, 0, 0]
    change(database, job, not_before=now_plus(-200))
    assert ages(api) == [about(200), 0, 0]


@pytest.mark.parametrize(
    ("success", "state", "counts"),
    [
        (True, JobState.SUCCEEDED, True),
        (True, JobState.FAILED, False),
        (True, JobState.RUNNING, False),
        (False, JobState.FAILED, True),
        (False, JobState.CANCELLED, True),
        (False, JobState.PAUSED, False),
    ],
)
def test_a_job_that_waits_for_others_is_as_old_as_the_last_of_them_ended(
    api: httpx.Client, database: Database, success: bool, state: JobState, counts: bool
) -> None:
    first, last, job = (add_waiting(database) for _ in range(3))
    told(database, job, 9000)
    change(database, first, state=JobState.SUCCEEDED, finished_at=now_plus(-3000))
    change(database, last, state=state, finished_at=now_plus(-300))
    with database.session() as session:
        for needs, wanted in ((first, True), (last, success)):
            session.add(JobDependency(job_id=job, needs_id=needs, success=wanted))
        session.commit()
    assert ages(api) == [about(300) if counts else 0, 0, 0]
    # It began to wait later than they ended.
    told(database, job, 60)
    assert ages(api) == [about(60) if counts else 0, 0, 0]


def test_jobs_that_workers_hold_are_counted_by_lane(api: httpx.Client, database: Database) -> None:
    for lane in (Lane.CPU, Lane.GPU_TRAIN, Lane.GPU_TRAIN):
        add_waiting(database, lane=lane)
        assert transitions.claim(database, "here", 600) is not None
    ended = add_waiting(database)
    change(database, ended, state=JobState.FAILED, lease_until=now_plus(60))  # not tidied yet
    found = samples(api)
    held = {lane: found["stylefilter_jobs_held", lane] for lane in Lane}
    assert held == {Lane.CPU: 1, Lane.DATA: 0, Lane.GPU_INFER: 0, Lane.GPU_TRAIN: 2}
