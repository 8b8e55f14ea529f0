"""The reconciler against real rows, folders and broker messages."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.database import Database, now_plus
from app.jobs.queue import JobQueue
from app.jobs.reconciler import Reconciler
from app.jobs.transitions import claim, renew
from app.settings import Settings
from app.storage import Storage
from app.tables import Job, JobState
from tests.app.records import add_waiting
from tests.processes import wait_for


@pytest.fixture
def messages(settings: Settings) -> Path:
    return settings.data_folder / "broker" / "messages"


@pytest.fixture
def reconciler(settings: Settings, database: Database) -> Iterator[Reconciler]:
    queue = JobQueue(settings)
    yield Reconciler(database, Storage(settings.data_folder), queue, settings)
    queue.close()


def read(database: Database, job_id: UUID) -> Job:
    with database.reading() as session:
        return session.get_one(Job, job_id)


def change(database: Database, **values: object) -> None:
    with database.session() as session:
        session.execute(update(Job).values(**values))
        session.commit()


def test_a_queued_job_is_announced_again_with_growing_pauses(
    database: Database, reconciler: Reconciler, messages: Path
) -> None:
    job_id = add_waiting(database, announce_at=now_plus())
    pauses = []
    for _ in range(6):
        change(database, announce_at=now_plus())
        reconciler.reconcile()
        with database.reading() as session:
            at, now = session.execute(select(Job.announce_at, now_plus())).one()
            pauses.append((at - now).total_seconds())
    assert pauses == pytest.approx([5, 10, 20, 40, 60, 60], abs=1)
    assert read(database, job_id).announcements == 6
    texts = [path.read_text() for path in messages.glob("*.msg")]
    assert len(texts) == 6


def test_a_job_that_was_announced_lately_is_left_alone(
    database: Database, reconciler: Reconciler, messages: Path
) -> None:
    job_id = add_waiting(database, announce_at=now_plus(5))
    reconciler.reconcile()
    assert read(database, job_id).announcements == 0
    assert list(messages.glob("*.msg")) == []


@pytest.mark.parametrize(
    ("state", "end", "code"),
    [(JobState.RUNNING, "interrupted", "worker_lost"), (JobState.CANCELLING, "cancelled", None)],
)
def test_a_job_without_a_living_worker_is_let_go(
    database: Database,
    settings: Settings,
    reconciler: Reconciler,
    state: JobState,
    end: str,
    code: str | None,
) -> None:
    job_id = add_waiting(database)
    lease = claim(database, "gone", 60)
    assert lease is not None
    storage = Storage(settings.data_folder)
    half_written = storage.attempt(job_id, lease.attempt) / "style.part"
    half_written.mkdir(parents=True)
    saved = storage.checkpoints(job_id) / "style-1.pt"
    saved.mkdir(parents=True)
    change(database, state=state, lease_until=now_plus(-0.001), steps_per_second=2.0)
    reconciler.reconcile()
    job = read(database, job_id)
    assert (job.state, job.error_code) == (end, code)
    assert ("lease" in (job.error_message or "")) == (code is not None)
    assert (job.finished_at is None) == (end == "interrupted")
    assert (job.lease_owner, job.lease_until, job.steps_per_second) == (None, None, None)
    assert not storage.attempt(job_id, lease.attempt).exists()
    assert saved.exists() == (end == "interrupted")
    # The worker was only asleep: it is turned away when it wakes.
    assert renew(database, lease, 60) is None
    assert read(database, job_id).state == end


def test_a_job_with_a_living_worker_is_left_alone(
    database: Database, settings: Settings, reconciler: Reconciler
) -> None:
    job_id = add_waiting(database)
    lease = claim(database, "alive", 60)
    assert lease is not None
    attempt = Storage(settings.data_folder).attempt(job_id, lease.attempt)
    attempt.mkdir(parents=True)
    reconciler.reconcile()
    assert read(database, job_id).state == "running"
    assert attempt.is_dir()


def test_ended_jobs_are_left_alone(database: Database, reconciler: Reconciler) -> None:
    past = now_plus(-100)
    ids = [
        add_waiting(database, state=state, lease_until=past, announce_at=past)
        for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
    ]
    reconciler.reconcile()
    assert [read(database, i).state for i in ids] == ["succeeded", "failed", "cancelled"]
    assert [read(database, i).announcements for i in ids] == [0, 0, 0]


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
def test_what_a_worker_that_died_at_the_end_left_is_removed(
    database: Database, settings: Settings, reconciler: Reconciler, state: JobState
) -> None:
    job_id = add_waiting(database, state=state, attempt=2, lease_until=now_plus(60))
    storage = Storage(settings.data_folder)
    for attempt in (1, 2, 3):  # the third of a retry
        (storage.attempt(job_id, attempt) / "work").mkdir(parents=True)
    for kept in (storage.checkpoints(job_id), storage.pictures(job_id)):
        kept.mkdir()
    before = {path.name for path in storage.job(job_id).iterdir()}
    reconciler.reconcile()
    assert {path.name for path in storage.job(job_id).iterdir()} == before  # its worker may live
    change(database, lease_until=now_plus(-0.001))
    reconciler.reconcile()
    left = {
        JobState.SUCCEEDED: {"2", "3", "pictures"},
        JobState.FAILED: {"3", "checkpoints", "pictures"},
        JobState.CANCELLED: {"3", "pictures"},
    }[state]
    assert {path.name for path in storage.job(job_id).iterdir()} == left
    assert not (storage.attempt(job_id, 2) / "work").exists()
    assert read(database, job_id).lease_until is None


def test_many_reconcilers_announce_and_reap_once(
    settings: Settings, database: Database, messages: Path
) -> None:
    # On a busy machine these rounds are seconds apart: nothing is due for a second time.
    settings = settings.model_copy(update={"announce_again_seconds": 3600})
    queued = [add_waiting(database, announce_at=now_plus()) for _ in range(10)]
    lost = [
        add_waiting(database, state=JobState.RUNNING, attempt=1, lease_until=now_plus(-1))
        for _ in range(10)
    ]
    barrier = Barrier(4)

    def run(_: int) -> None:
        own, queue = Database(settings.database), JobQueue(settings)
        barrier.wait()
        Reconciler(own, Storage(settings.data_folder), queue, settings).reconcile()
        queue.close()
        own.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, range(4)))
    assert [read(database, i).announcements for i in queued] == [1] * 10
    again = sum(read(database, i).announcements for i in lost)  # those whose pause was over
    assert len(list(messages.glob("*.msg"))) == 10 + again
    assert {read(database, i).state for i in lost} == {"interrupted"}
    assert [read(database, i).lost_attempts for i in lost] == [1] * 10


def test_the_thread_outlasts_a_database_that_is_away(
    settings: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its table a round fails; with the table back, the next one does its work."""
    hasty = settings.model_copy(update={"reconcile_seconds": 0.05})
    queue = JobQueue(hasty)
    reconciler = Reconciler(database, Storage(hasty.data_folder), queue, hasty)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO jobs_away")
    with caplog.at_level(logging.WARNING):
        reconciler.start()
        wait_for(lambda: "reconcile_failed" in caplog.text, "a round that fails")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs_away RENAME TO jobs")
    job_id = add_waiting(database, announce_at=now_plus())
    wait_for(lambda: read(database, job_id).announcements == 1, "the announcement")
    reconciler.close()
    queue.close()
