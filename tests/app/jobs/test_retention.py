"""What is not kept for ever, on real rows and folders."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, func, insert, select, update
from sqlalchemy.orm import InstrumentedAttribute

from app.database import Database, now_plus
from app.jobs import orders, retention, transitions
from app.jobs.queue import JobQueue
from app.jobs.reconciler import Reconciler
from app.settings import Settings
from app.storage import Storage
from app.tables import ACTIVE, Job, JobEvent, JobKind, JobState, MetricPoint
from models.config.presets import preset

DAY = 24 * 3600


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.data_folder)


@pytest.fixture
def make(database: Database, storage: Storage, settings: Settings) -> Iterator[Any]:
    """Makes a reconciler with the given settings."""
    queue = JobQueue(settings)

    def reconciler(**changed: float) -> Reconciler:
        return Reconciler(database, storage, queue, settings.model_copy(update=changed))

    yield reconciler
    queue.close()


def add(database: Database, ended_days_ago: float | None, **columns: Any) -> UUID:
    ended = None if ended_days_ago is None else now_plus(-ended_days_ago * DAY)
    values = {"state": JobState.SUCCEEDED, "finished_at": ended} | columns
    with database.session() as session:
        job = Job(kind=JobKind.ADAPT, config=preset("smoke").model_dump(mode="json"), **values)
        session.add(job)
        session.commit()
        return job.id


def remember(database: Database, job_id: UUID, points: int = 3, events: int = 2) -> None:
    keys = [(stage, name) for stage in ("adapt", "style") for name in ("dice/mean", "nce")]
    rows = [
        {"job_id": job_id, "stage": stage, "name": name, "step": step, "value": 0.5}
        for stage, name in keys
        for step in range(points)
    ]
    with database.session() as session:
        session.execute(insert(MetricPoint), rows)
        for n in range(events):
            transitions.record(session, job_id, "stage", {"n": n})
        session.commit()


def remembered(database: Database, job_id: UUID) -> tuple[int, int]:
    """Points and events of a job."""
    with database.reading() as session:
        counts = [
            session.scalar(select(func.count()).select_from(table).where(of_job))
            for table, of_job in (
                (MetricPoint, MetricPoint.job_id == job_id),
                (JobEvent, JobEvent.job_id == job_id),
            )
        ]
    return counts[0] or 0, counts[1] or 0


def read(database: Database, column: InstrumentedAttribute[Any], job_id: UUID) -> Any:
    with database.reading() as session:
        return session.scalar(select(column).where(Job.id == job_id))


# --- metrics and events ---------------------------------------------------------------------------


def test_the_history_of_old_jobs_is_forgotten_and_nothing_else(
    database: Database, make: Any
) -> None:
    old = [
        add(database, 3.1, state=state)
        for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
    ]
    kept = [add(database, 2.9), add(database, None, state=JobState.PAUSED)]
    for job_id in (*old, *kept):
        remember(database, job_id)
    make(metrics_days=3.0).reconcile()
    assert [remembered(database, job_id) for job_id in old] == [(0, 0)] * 3
    assert [remembered(database, job_id) for job_id in kept] == [(12, 2)] * 2
    assert [read(database, Job.forgotten_at, job_id) for job_id in kept] == [None] * 2
    assert None not in [read(database, Job.forgotten_at, job_id) for job_id in old]


def test_history_is_kept_for_ever_by_default(database: Database, make: Any) -> None:
    job_id = add(database, 10_000)
    remember(database, job_id)
    make().reconcile()
    assert remembered(database, job_id) == (12, 2)


def test_one_round_deletes_no_more_than_so_many_rows(
    database: Database, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_ROWS_AT_A_TIME", 100)
    first, second = add(database, 9), add(database, 8)
    for job_id in (first, second):
        remember(database, job_id, points=40, events=20)
    reconciler = make(metrics_days=3.0)
    left = []
    for _ in range(5):
        reconciler.reconcile()
        left.append((remembered(database, first), remembered(database, second)))
    assert left == [
        ((60, 20), (160, 20)),
        ((0, 0), (140, 20)),
        ((0, 0), (40, 20)),
        *[((0, 0), (0, 0))] * 2,
    ]


def test_what_is_forgotten_is_not_looked_at_again(database: Database, make: Any) -> None:
    for _ in range(5):
        remember(database, add(database, 9))
    reconciler = make(metrics_days=3.0)
    reconciler.reconcile()
    seen: list[str] = []

    def note(*arguments: object) -> None:
        seen.append(str(arguments[2]))

    event.listen(database.engine, "before_cursor_execute", note)
    reconciler.reconcile()
    event.remove(database.engine, "before_cursor_execute", note)
    assert any("forgotten_at IS NULL" in statement for statement in seen)
    assert [statement for statement in seen if "metric_points" in statement] == []


def test_a_job_that_is_retried_is_remembered_anew(database: Database, make: Any) -> None:
    job_id = add(database, 9, state=JobState.FAILED)
    reconciler = make(metrics_days=3.0)
    reconciler.reconcile()
    with database.session() as session:
        assert orders.retry(session, job_id)
        session.commit()
    remember(database, job_id)
    reconciler.reconcile()
    assert remembered(database, job_id) == (12, 3)
    with database.session() as session:
        ended = {"state": JobState.FAILED, "finished_at": now_plus(-4 * DAY)}
        session.execute(update(Job).values(announce_at=None, **ended))
        session.commit()
    reconciler.reconcile()
    assert remembered(database, job_id) == (0, 0)


# --- checkpoints ----------------------------------------------------------------------------------


def checkpoint(storage: Storage, job_id: UUID) -> Path:
    folder = storage.checkpoints(job_id)
    folder.mkdir(parents=True)
    (folder / "style.pt").write_bytes(b"state")
    storage.log(job_id, 1).parent.mkdir()
    storage.log(job_id, 1).write_text("said")
    return folder


def test_checkpoints_of_long_failed_jobs_go(
    database: Database, storage: Storage, make: Any
) -> None:
    failed = add(database, 7.1, state=JobState.FAILED)
    old = checkpoint(storage, failed)
    lately = checkpoint(storage, add(database, 6.9, state=JobState.FAILED))
    held = [
        checkpoint(storage, add(database, None, state=state, lease_until=now_plus(60)))
        for state in (JobState.QUEUED, JobState.PAUSED, *ACTIVE)
    ]
    stray = storage.folder / "jobs" / "lost+found" / "checkpoints"
    stray.mkdir(parents=True)
    make().reconcile()
    assert not old.exists()
    assert storage.log(failed, 1).read_text() == "said"
    assert all(folder.joinpath("style.pt").exists() for folder in (lately, *held))
    assert stray.exists()
    assert list(storage.incoming.iterdir()) == []


def test_folders_are_looked_through_once_an_hour(
    database: Database, storage: Storage, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("app.jobs.reconciler.monotonic", lambda: now[0])
    reconciler = make(failed_checkpoint_days=0.0)
    reconciler.reconcile()
    folder = checkpoint(storage, add(database, 1, state=JobState.FAILED))
    now[0] += 3599
    reconciler.reconcile()
    assert folder.exists()
    now[0] += 1
    reconciler.reconcile()
    assert not folder.exists()


def test_another_process_may_be_first(
    database: Database, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = add(database, 9, state=JobState.FAILED)
    monkeypatch.setattr(storage, "with_saved", lambda: iter([job_id]))
    retention.drop_saved(database, storage, 7)
    assert not storage.job(job_id).exists()
