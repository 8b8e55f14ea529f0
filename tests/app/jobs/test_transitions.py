"""The state machine of jobs, with the orders of users, on real databases with real threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.database import Database, now_plus
from app.jobs import orders, transitions
from app.jobs.transitions import (
    Changed,
    Failure,
    Lease,
    claim,
    fail,
    hand_back,
    lose,
    renew,
    succeed,
    write,
)
from app.tables import (
    ACTIVE,
    UNFINISHED,
    WAITING,
    Job,
    JobDependency,
    JobEvent,
    JobKind,
    JobState,
    Lane,
    WebhookDelivery,
)
from models.config.presets import preset

FAILURE = Failure("trainer_died", "why", "where")
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


def add(database: Database, **columns: Any) -> UUID:
    with database.session() as session:
        values = {"announce_at": now_plus(3600)} | columns
        job = Job(kind=JobKind.ADAPT, config=preset("smoke").model_dump(mode="json"), **values)
        session.add(job)
        session.commit()
        return job.id


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add(database)


def read(database: Database, job_id: UUID) -> Job:
    with database.reading() as session:
        return session.get_one(Job, job_id)


def events(database: Database, job_id: UUID) -> list[dict[str, Any]]:
    query = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id)
    with database.reading() as session:
        return [event.data for event in session.scalars(query)]


def change(database: Database, job_id: UUID, **values: Any) -> None:
    with database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))
        session.commit()


def do(database: Database, transition: Callable[..., Any], *arguments: Any, **columns: Any) -> Any:
    with database.session() as session:
        done = transition(session, *arguments, **columns)
        session.commit()
    return done


def seconds_until(database: Database, job_id: UUID, column: Any) -> float:
    with database.reading() as session:
        at, now = session.execute(select(column, now_plus()).where(Job.id == job_id)).one()
        return float((at - now).total_seconds())


def now_of(database: Database) -> datetime:
    with database.reading() as session:
        return session.execute(select(now_plus())).scalar_one()


def claimed(database: Database, seconds: float = 60) -> Lease:
    lease = claim(database, "here", seconds)
    assert lease is not None
    return lease


def in_state(database: Database, state: JobState) -> UUID:
    """A job that came to its state as jobs do."""
    job_id = add(database)
    ways: dict[JobState, list[Callable[[Session], Any]]] = {
        JobState.PAUSED: [lambda s: orders.pause(s, job_id)],
        JobState.CANCELLED: [lambda s: orders.cancel(s, job_id)],
    }
    if state in (JobState.QUEUED, *ways):
        for way in ways.get(state, []):
            assert do(database, way)
        return job_id
    lease = claimed(database)
    assert lease.job_id == job_id
    held: dict[JobState, Callable[[Session], Any]] = {
        JobState.PAUSING: lambda s: orders.pause(s, job_id),
        JobState.CANCELLING: lambda s: orders.cancel(s, job_id),
        JobState.INTERRUPTED: lambda s: lose(s, lease, FAILURE),
        JobState.SUCCEEDED: lambda s: succeed(s, lease, {}),
        JobState.FAILED: lambda s: fail(s, lease, FAILURE),
    }
    if state in held:
        assert do(database, held[state])
    return job_id


# --- claims ---------------------------------------------------------------------------------------


def test_of_many_who_claim_at_once_one_wins(database: Database, job_id: UUID) -> None:
    barrier = Barrier(20)

    def race(number: int) -> Lease | None:
        barrier.wait()
        return claim(database, f"owner {number}", 60)

    with ThreadPoolExecutor(20) as threads:
        leases = list(threads.map(race, range(20)))
    won = [(n, lease) for n, lease in enumerate(leases) if lease is not None]
    assert len(won) == 1
    number, lease = won[0]
    job = read(database, job_id)
    assert lease == Lease(job_id, attempt=1)
    assert (job.state, job.attempt, job.lease_owner) == ("running", 1, f"owner {number}")
    assert job.started_at is not None
    assert job.announce_at is None


def test_jobs_are_claimed_once_by_priority_then_age(database: Database) -> None:
    low, first, second, high = (add(database, priority=p) for p in (-1, 0, 0, 7))
    assert [claimed(database).job_id for _ in range(4)] == [high, first, second, low]
    assert claim(database, "here", 60) is None


def test_a_worker_claims_in_its_lanes_only(database: Database) -> None:
    gpu = add(database, lane=Lane.GPU_TRAIN, priority=5)
    cpu = add(database)
    assert claim(database, "here", 60, [Lane.GPU_INFER]) is None
    first, second = (claim(database, "here", 60, [lane]) for lane in (Lane.CPU, Lane.GPU_TRAIN))
    assert (first, second) == (Lease(cpu, 1), Lease(gpu, 1))


@pytest.mark.parametrize("state", [state for state in JobState if state not in WAITING])
def test_only_a_waiting_job_can_be_claimed(database: Database, state: JobState) -> None:
    job_id = in_state(database, state)
    assert claim(database, "here", 60) is None
    assert read(database, job_id).state == state


def test_a_job_waits_for_those_it_needs(database: Database) -> None:
    needed, other = add(database), add(database)
    job_id = add(database, priority=9)
    with database.session() as session:
        for one in (needed, other):
            session.add(JobDependency(job_id=job_id, needs_id=one))
        session.commit()
    for expected in (needed, other):
        lease = claimed(database)
        assert lease.job_id == expected
        assert do(database, succeed, lease, {})
    assert claimed(database).job_id == job_id


@pytest.mark.parametrize("end", [JobState.FAILED, JobState.CANCELLED])
def test_a_job_whose_need_cannot_be_met_fails_and_its_dependents_too(
    database: Database, end: JobState
) -> None:
    needed = in_state(database, end)
    job_id, after_that = add(database), add(database)
    with database.session() as session:
        session.add(JobDependency(job_id=job_id, needs_id=needed))
        session.add(JobDependency(job_id=after_that, needs_id=job_id))
        session.commit()
    assert claim(database, "here", 60) is None
    assert do(database, transitions.give_up_dependents) == [job_id]
    assert do(database, transitions.give_up_dependents) == [after_that]
    assert do(database, transitions.give_up_dependents) == []
    job = read(database, after_that)
    assert (job.state, job.error_code) == ("failed", "dependency_failed")


# --- attempts -------------------------------------------------------------------------------------


def test_the_fence_rises_and_an_old_one_writes_nothing(database: Database, job_id: UUID) -> None:
    old = claimed(database)
    assert do(database, hand_back, old)
    new = claimed(database)
    assert (old.attempt, new.attempt) == (1, 2)

    before, told = vars(read(database, job_id)).copy(), events(database, job_id)
    assert do(database, write, old, step=7) is None
    assert not do(database, succeed, old, {})
    assert not do(database, fail, old, FAILURE)
    assert not do(database, lose, old, FAILURE)
    assert not do(database, hand_back, old)
    assert renew(database, old, 1000) is None
    after = vars(read(database, job_id))
    del before["_sa_instance_state"], after["_sa_instance_state"]
    assert after == before
    assert events(database, job_id) == told

    with database.session() as session:
        assert write(session, new, step=8) == JobState.RUNNING
        session.commit()
    assert read(database, job_id).step == 8


def test_renewing_extends_the_lease_and_tells_of_a_cancellation(
    database: Database, job_id: UUID
) -> None:
    lease = claimed(database, seconds=5)
    assert 0 < seconds_until(database, job_id, Job.lease_until) <= 5
    assert renew(database, lease, 100) == JobState.RUNNING
    assert 50 < seconds_until(database, job_id, Job.lease_until) <= 100
    assert do(database, orders.cancel, job_id)
    assert renew(database, lease, 100) == JobState.CANCELLING


def test_a_job_ends_once(database: Database, job_id: UUID) -> None:
    lease = claimed(database)
    assert do(database, fail, lease, FAILURE)
    assert not do(database, succeed, lease, {})
    job = read(database, job_id)
    assert (job.state, job.error_code, job.error_message) == ("failed", "trainer_died", "why")
    assert job.error_traceback == "where"
    assert job.finished_at is not None
    # Its files are not tidy yet.
    assert (job.lease_owner, do(database, transitions.untidy)) == ("here", [])
    change(database, job_id, lease_until=now_plus(-0.001))
    assert do(database, transitions.untidy) == [Changed(lease, JobState.FAILED)]
    do(database, transitions.release, lease)
    assert do(database, transitions.untidy) == []


def test_handing_back_queues_the_job_where_it_was(database: Database, job_id: UUID) -> None:
    lease = claimed(database)
    with database.session() as session:
        write(session, lease, stage="style", step=3, total=9, steps_per_second=2.0)
        assert hand_back(session, lease)
        session.commit()
    job = read(database, job_id)
    assert (job.state, job.stage, job.step, job.total) == ("queued", "style", 3, 9)
    assert (job.lease_owner, job.lease_until, job.steps_per_second) == (None, None, None)
    assert (job.lost_attempts, job.finished_at) == (0, None)
    assert seconds_until(database, job_id, Job.announce_at) <= 0  # the reconciler announces it
    claimed(database)
    assert read(database, job_id).started_at == job.started_at is not None


@pytest.mark.parametrize("way", ["lose", "expire"])
def test_a_lost_job_waits_longer_each_time_and_fails_at_the_limit(
    database: Database, way: str
) -> None:
    job_id = add(database, max_attempts=4)
    for attempt in range(4):
        change(database, job_id, not_before=None)
        lease = claimed(database)
        assert read(database, job_id).error_code is None
        before = now_of(database)
        if way == "lose":
            assert do(database, lose, lease, FAILURE)
        else:
            change(database, job_id, lease_until=now_plus(-0.001))
            assert [of.lease for of in do(database, transitions.expire)] == [lease]
        job = read(database, job_id)
        assert job.lost_attempts == attempt + 1
        assert job.error_code == ("trainer_died" if way == "lose" else "worker_lost")
        if job.state == JobState.INTERRUPTED:
            pause = timedelta(seconds=2 * 2**attempt)
            for at in (job.not_before, job.announce_at):
                assert at is not None
                assert before + pause <= at <= now_of(database) + pause
            assert job.finished_at is None
            assert claim(database, "here", 60) is None  # not yet
    assert (job.state, job.announce_at, job.not_before) == ("failed", None, None)
    assert job.finished_at is not None
    assert [data["state"] for data in events(database, job_id)] == [
        *["running", "interrupted"] * 3,
        "running",
        "failed",
    ]


def test_a_worker_that_slept_through_its_lease_is_turned_away(
    database: Database, job_id: UUID
) -> None:
    lease = claimed(database)
    change(database, job_id, lease_until=now_plus(-0.001))
    assert [of.lease for of in do(database, transitions.expire)] == [lease]
    assert renew(database, lease, 60) is None
    assert do(database, write, lease, step=7) is None


def test_a_living_lease_does_not_expire(database: Database, job_id: UUID) -> None:
    claimed(database)
    assert do(database, transitions.expire) == []
    assert read(database, job_id).state == "running"


@pytest.mark.parametrize(
    ("asked", "left"),
    [(JobState.CANCELLING, JobState.CANCELLED), (JobState.PAUSING, JobState.PAUSED)],
)
@pytest.mark.parametrize("way", ["hand_back", "lose", "expire"])
def test_what_the_user_asked_for_is_what_a_job_becomes(
    database: Database, asked: JobState, left: JobState, way: str
) -> None:
    job_id = in_state(database, asked)
    lease = Lease(job_id, 1)
    if way == "expire":
        change(database, job_id, lease_until=now_plus(-0.001))
        assert [of.lease for of in do(database, transitions.expire)] == [lease]
    else:
        assert do(database, *((hand_back, lease) if way == "hand_back" else (lose, lease, FAILURE)))
    job = read(database, job_id)
    assert (job.state, job.error_code, job.lost_attempts) == (left, None, 0)
    assert job.announce_at is None
    assert (job.lease_until is None) == (left == JobState.PAUSED)
    assert (job.finished_at is not None) == (left == JobState.CANCELLED)


def test_a_cancelled_job_that_fails_is_cancelled(database: Database) -> None:
    job_id = in_state(database, JobState.CANCELLING)
    assert do(database, fail, Lease(job_id, 1), FAILURE)
    job = read(database, job_id)
    assert (job.state, job.error_code, job.error_message) == ("cancelled", None, None)


# --- users ----------------------------------------------------------------------------------------

ALLOWED: dict[str, dict[JobState, JobState]] = {
    "cancel": {
        **dict.fromkeys((*WAITING, JobState.PAUSED), JobState.CANCELLED),
        **dict.fromkeys(ACTIVE, JobState.CANCELLING),
    },
    "pause": {
        **dict.fromkeys(WAITING, JobState.PAUSED),
        JobState.RUNNING: JobState.PAUSING,
    },
    "resume": {
        JobState.PAUSED: JobState.QUEUED,
        JobState.INTERRUPTED: JobState.QUEUED,
        JobState.PAUSING: JobState.RUNNING,
    },
    "retry": {JobState.FAILED: JobState.QUEUED},
}


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("name", list(ALLOWED))
def test_each_request_is_met_or_refused_by_the_state(
    database: Database, name: str, state: JobState
) -> None:
    job_id = in_state(database, state)
    told = len(events(database, job_id))
    expected = ALLOWED[name].get(state)
    assert do(database, getattr(orders, name), job_id) == (expected is not None)
    job = read(database, job_id)
    assert job.state == (expected or state)
    assert (job.announce_at is not None) == (job.state in WAITING)
    assert (job.finished_at is not None) == (job.state in ENDED)
    assert len(events(database, job_id)) == told + (expected is not None)
    if expected == JobState.QUEUED:
        lease = claimed(database)
        assert lease.job_id == job_id
        assert read(database, job_id).error_code is None


def test_a_retried_job_has_all_its_attempts_again(database: Database) -> None:
    job_id = add(database, max_attempts=1)
    assert do(database, lose, claimed(database), FAILURE)
    assert read(database, job_id).state == "failed"
    assert do(database, orders.retry, job_id)
    assert (read(database, job_id).lost_attempts, read(database, job_id).attempt) == (0, 1)


@pytest.mark.parametrize("state", list(JobState))
def test_the_priority_of_an_unfinished_job_may_change(database: Database, state: JobState) -> None:
    job_id = in_state(database, state)
    assert do(database, orders.set_priority, job_id, 42) == (state in UNFINISHED)
    assert read(database, job_id).priority == (42 if state in UNFINISHED else 0)


# --- events ---------------------------------------------------------------------------------------


def test_each_change_is_told_with_its_attempt_and_reason(database: Database) -> None:
    with database.session() as session:
        job = Job(
            kind=JobKind.ADAPT,
            config=preset("smoke").model_dump(mode="json"),
            announce_at=now_plus(),
            webhook_url="https://example.org/hook",
        )
        session.add(job)
        session.flush()
        orders.submitted(session, job)
        session.commit()
    first = claimed(database)
    do(database, lose, first, FAILURE)
    do(database, orders.resume, job.id)
    second = claimed(database)
    do(database, succeed, second, {})
    assert events(database, job.id) == [
        {"state": "queued", "attempt": 0},
        {"state": "running", "attempt": 1, "worker": "here"},
        {"state": "interrupted", "attempt": 1, "code": "trainer_died", "message": "why"},
        {"state": "queued", "attempt": 1, "code": "trainer_died", "message": "why"},
        {"state": "running", "attempt": 2, "worker": "here"},
        {"state": "succeeded", "attempt": 2},
    ]
    with database.reading() as session:
        deliveries = session.scalars(select(WebhookDelivery.event_id)).all()
        assert sorted(deliveries) == sorted(session.scalars(select(JobEvent.id)))
