"""Claims, fences and ends, on real databases with real threads."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from app.database import Database, now_plus
from app.tables import Job, JobKind, JobState
from models.config import preset
from worker.lease import Lease, claim, finish, give_back, renew, write


@pytest.fixture
def job_id(database: Database) -> UUID:
    with database.session() as session:
        job = Job(kind=JobKind.ADAPT, config=preset("smoke").model_dump())
        session.add(job)
        session.commit()
        return job.id


def read(database: Database, job_id: UUID) -> Job:
    with database.reading() as session:
        return session.get_one(Job, job_id)


def seconds_left(database: Database, job_id: UUID) -> float:
    with database.reading() as session:
        until, now = session.execute(
            select(Job.lease_until, now_plus()).where(Job.id == job_id)
        ).one()
        return float((until - now).total_seconds())


def claimed(database: Database, job_id: UUID, seconds: float = 60) -> Lease:
    lease = claim(database, job_id, "here", seconds)
    assert lease is not None
    return lease


def test_of_many_who_claim_at_once_one_wins(database: Database, job_id: UUID) -> None:
    barrier = Barrier(20)

    def race(number: int) -> Lease | None:
        barrier.wait()
        return claim(database, job_id, f"owner {number}", 60)

    with ThreadPoolExecutor(20) as threads:
        leases = list(threads.map(race, range(20)))
    won = [(n, lease) for n, lease in enumerate(leases) if lease is not None]
    assert len(won) == 1
    number, lease = won[0]
    job = read(database, job_id)
    assert lease == Lease(job_id, fence=1)
    assert (job.state, job.fence, job.lease_owner) == ("running", 1, f"owner {number}")
    assert job.started_at is not None
    assert job.announce_at is None


def test_there_is_nothing_to_claim_of_an_unknown_job(database: Database) -> None:
    assert claim(database, uuid4(), "here", 60) is None


@pytest.mark.parametrize("state", [state for state in JobState if state != JobState.QUEUED])
def test_only_a_queued_job_can_be_claimed(
    database: Database, job_id: UUID, state: JobState
) -> None:
    with database.session() as session:
        session.execute(update(Job).values(state=state))
        session.commit()
    assert claim(database, job_id, "here", 60) is None
    assert read(database, job_id).state == state


def test_the_fence_rises_and_an_old_one_writes_nothing(database: Database, job_id: UUID) -> None:
    old = claimed(database, job_id)
    with database.session() as session:
        assert give_back(session, old)
        session.commit()
    new = claimed(database, job_id)
    assert (old.fence, new.fence) == (1, 2)

    before = vars(read(database, job_id)).copy()
    with database.session() as session:
        assert write(session, old, step=7) is None
        assert not finish(session, old, JobState.SUCCEEDED)
        assert not give_back(session, old)
        session.commit()
    assert renew(database, old, 1000) is None
    after = vars(read(database, job_id))
    del before["_sa_instance_state"], after["_sa_instance_state"]
    assert after == before

    with database.session() as session:
        assert write(session, new, step=8) == JobState.RUNNING
        session.commit()
    assert read(database, job_id).step == 8


def test_renewing_extends_the_lease_and_tells_of_a_cancellation(
    database: Database, job_id: UUID
) -> None:
    lease = claimed(database, job_id, seconds=5)
    assert 0 < seconds_left(database, job_id) <= 5
    assert renew(database, lease, 100) == JobState.RUNNING
    assert 50 < seconds_left(database, job_id) <= 100
    with database.session() as session:
        session.execute(update(Job).values(state=JobState.CANCELLING))
        session.commit()
    assert renew(database, lease, 100) == JobState.CANCELLING


def test_a_job_ends_once(database: Database, job_id: UUID) -> None:
    lease = claimed(database, job_id)
    with database.session() as session:
        assert finish(session, lease, JobState.FAILED, error_code="failed", error_message="why")
        session.commit()
    with database.session() as session:
        assert not finish(session, lease, JobState.SUCCEEDED)
        session.commit()
    job = read(database, job_id)
    assert (job.state, job.error_code, job.error_message) == ("failed", "failed", "why")
    assert job.finished_at is not None
    assert (job.lease_owner, job.lease_until) == (None, None)


def test_giving_back_queues_the_job_where_it_was(database: Database, job_id: UUID) -> None:
    lease = claimed(database, job_id)
    with database.session() as session:
        write(session, lease, stage="style", step=3, total=9, steps_per_second=2.0)
        assert give_back(session, lease)
        session.commit()
    job = read(database, job_id)
    assert (job.state, job.stage, job.step, job.total) == ("queued", "style", 3, 9)
    assert (job.lease_owner, job.lease_until, job.steps_per_second) == (None, None, None)
    assert job.announce_at is not None  # the reconciler announces it
    claimed(database, job_id)
    assert read(database, job_id).started_at == job.started_at is not None


def test_a_job_that_is_being_cancelled_is_not_given_back(database: Database, job_id: UUID) -> None:
    lease = claimed(database, job_id)
    with database.session() as session:
        session.execute(update(Job).values(state=JobState.CANCELLING))
        assert not give_back(session, lease)
        session.commit()
    assert read(database, job_id).state == "cancelling"
