"""What reaches the database of a training's progress, and what stops the training."""

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import event, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.database import Database, now_plus
from app.jobs.orders import pause
from app.jobs.transitions import Lease, claim, hand_back
from app.tables import Job, JobEvent, JobKind, JobStage, JobState, MetricPoint
from models.config.presets import preset
from models.training.progress import Picture, Progress, Stage, Stop
from worker.progress import Album, Cancelled, Recorder, Replaced


@pytest.fixture
def lease(database: Database) -> Lease:
    return _lease(database)


def _lease(database: Database) -> Lease:
    with database.session() as session:
        config = preset("smoke").model_dump(mode="json")
        job = Job(kind=JobKind.ADAPT, config=config, announce_at=now_plus())
        session.add(job)
        session.commit()
    lease = claim(database, "here", 60)
    assert lease is not None
    return lease


@pytest.fixture
def writes(database: Database) -> Iterator[list[str]]:
    """Statements that changed jobs since the test began."""
    seen: list[str] = []

    def note(*arguments: object) -> None:
        statement = str(arguments[2])
        if statement.startswith("UPDATE jobs"):
            seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine, "before_cursor_execute", note)


def report(
    recorder: Recorder,
    step: int,
    total: int,
    values: Mapping[str, float] | None = None,
    stage: Stage = "style",
    best: Mapping[str, float] | None = None,
) -> None:
    recorder(Progress(stage, step, total, values or {}, best))


def points(session: Session, job_id: UUID, name: str) -> dict[int, float]:
    query = select(MetricPoint.step, MetricPoint.value).where(
        MetricPoint.job_id == job_id, MetricPoint.name == name
    )
    return dict(session.execute(query.order_by(MetricPoint.step)).all())


def test_rows_are_written_at_most_every_half_second(
    database: Database, lease: Lease, writes: list[str]
) -> None:
    started = monotonic()
    recorder = Recorder(database, lease, 60)
    made = monotonic()
    for step in range(1, 1001):
        before_last = monotonic()
        report(recorder, step, 1000, {"nce": 1.0 / step})
        sleep(0.001)
    elapsed = monotonic() - started
    assert elapsed > 1
    # The first step, the last, and one per half second between them.
    assert 3 <= len(writes) <= 2 + elapsed / 0.5
    with database.reading() as session:
        job = session.get_one(Job, lease.job_id)
        assert (job.stage, job.step, job.total) == ("style", 1000, 1000)
        assert 1000 / elapsed <= job.steps_per_second <= 1000 / (before_last - made)
        # Thinned to nothing less than all: none is lost between two writes.
        assert points(session, lease.job_id, "nce") == {
            step: pytest.approx(1.0 / step) for step in range(1, 1001)
        }


def test_points_are_written_by_one_statement(database: Database, lease: Lease) -> None:
    inserts: list[int] = []

    def note(*arguments: Any) -> None:
        if arguments[2].startswith("INSERT INTO metric_points"):
            inserts.append(len(arguments[3]) if arguments[5] else 1)

    event.listen(database.engine, "before_cursor_execute", note)
    recorder = Recorder(database, lease, 60)
    report(recorder, 1, 9, {"nce": 1.0})
    for step in range(2, 10):
        report(recorder, step, 9, {"nce": 1.0, "gan": 2.0, "dice/mean": 0.5})
    report(recorder, 1, 9, stage="pretrain")  # without values there is nothing to insert
    event.remove(database.engine, "before_cursor_execute", note)
    assert inserts == [1, 8 * 3]


def test_a_long_series_is_thinned_but_every_score_is_kept(database: Database, lease: Lease) -> None:
    recorder = Recorder(database, lease, 60)
    total, scored = 25_000, {}
    for step in range(1, total + 1):
        values = {"nce": float(step)}
        if step % 777 == 0:
            values |= {"dice/mean": step / total, "label_probability": step / (2 * total)}
            scored[step] = step / total
        report(recorder, step, total, values)
    with database.reading() as session:
        losses = points(session, lease.job_id, "nce")
        assert losses == {step: float(step) for step in [1, *range(25, total + 1, 25)]}
        assert points(session, lease.job_id, "dice/mean") == pytest.approx(scored)
        assert points(session, lease.job_id, "label_probability").keys() == scored.keys()


def test_stages_keep_their_order_seconds_and_end(database: Database, lease: Lease) -> None:
    started = monotonic()
    recorder = Recorder(database, lease, 60)
    for step in (1, 2, 3):
        sleep(0.1)
        report(recorder, step, 3)
    between = monotonic()
    sleep(0.4)
    report(recorder, 1, 2, stage="pretrain")
    ended = monotonic()
    with database.reading() as session:
        query = select(JobStage).where(JobStage.job_id == lease.job_id).order_by(JobStage.position)
        pretrain, style = session.scalars(query)
        assert (style.stage, style.step, style.total, style.finished) == ("style", 3, 3, True)
        assert 0.3 <= style.seconds <= between - started
        assert (pretrain.stage, pretrain.step, pretrain.finished) == ("pretrain", 1, False)
        # The time until the first report is the stage's own.
        assert 0.4 <= pretrain.seconds <= ended - started - 0.3


def test_the_summary_holds_last_losses_and_best_scores(database: Database, lease: Lease) -> None:
    recorder = Recorder(database, lease, 60)
    first, best = {"dice/mean": 0.2, "dice/a": 0.1}, {"dice/mean": 0.6, "dice/a": 0.5}
    report(recorder, 1, 3, {"loss": 3.0, **first}, best=first)
    report(recorder, 2, 3, {"loss": 2.0, **best}, best=best)
    report(recorder, 3, 3, {"loss": 1.0, "dice/mean": 0.4, "dice/a": 0.9}, best=best)
    chosen = {"loss": 1.0, "dice/mean": 0.6, "dice/a": 0.5}
    assert recorder.summary("style") == chosen | {"last/dice/mean": 0.4, "last/dice/a": 0.9}
    assert recorder.summary("adapt") == {}


def test_a_cancellation_stops_the_training(database: Database, lease: Lease) -> None:
    recorder = Recorder(database, lease, 60)
    report(recorder, 1, 9)
    with database.session() as session:
        session.execute(update(Job).values(state=JobState.CANCELLING))
        session.commit()
    with pytest.raises(Cancelled):
        report(recorder, 9, 9)


def test_a_pause_stops_the_training_to_be_resumed(database: Database, lease: Lease) -> None:
    recorder = Recorder(database, lease, 60)
    report(recorder, 1, 9)
    with database.session() as session:
        assert pause(session, lease.job_id)
        session.commit()
    with pytest.raises(Stop):
        report(recorder, 9, 9)


def test_stages_and_validations_are_events(database: Database, lease: Lease) -> None:
    recorder = Recorder(database, lease, 60)
    report(recorder, 1, 3, {"loss": 3.0})
    report(recorder, 2, 3, {"loss": 2.0, "dice/mean": 0.5})
    report(recorder, 3, 3, {"loss": 1.0, "dice/mean": 0.25})
    with database.reading() as session:
        query = select(JobEvent).where(JobEvent.kind != "state").order_by(JobEvent.id)
        found = [(event.kind, event.data) for event in session.scalars(query)]
    told = {"stage": "style", "total": 3, "attempt": 1}
    assert found == [
        ("stage", told | {"step": 1, "done": False}),
        ("validation", told | {"step": 2, "scores": {"dice/mean": 0.5}}),
        ("validation", told | {"step": 3, "scores": {"dice/mean": 0.25}}),
        ("stage", told | {"step": 3, "done": True}),
    ]


def test_pictures_are_drawn_and_told(database: Database, lease: Lease, tmp_path: Path) -> None:
    image = np.linspace(0, 1, 20 * 30, dtype=np.float32).reshape(20, 30)
    classes = (image > 0.5).astype(np.uint8)
    recorder = Recorder(database, lease, 60, album=Album(tmp_path / "pictures", ["a", "b"]))
    for step, picture in (
        (1, Picture(image, stylised=1 - image)),
        (2, Picture(image, None, classes)),
    ):
        recorder(Progress("style", step, 2, {}, picture=picture))
    names = ["style-1-1.png", "style-2-1.png"]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == names
    with database.reading() as session:
        query = select(JobEvent).where(JobEvent.kind == "picture").order_by(JobEvent.id)
        assert [event.data["name"] for event in session.scalars(query)] == names
    drawn = Image.open(tmp_path / "pictures" / "style-2-1.png")
    left, top = 12 + 30 + 12, 26  # of the second panel
    assert drawn.getpixel((left, top)) != drawn.getpixel((left + 29, top + 19))


def test_a_replaced_attempt_stops_and_writes_nothing(database: Database, lease: Lease) -> None:
    recorder = Recorder(database, lease, 60)
    report(recorder, 1, 9, {"nce": 1.0})
    with database.session() as session:
        assert hand_back(session, lease)
        session.commit()
    assert claim(database, "there", 60) == Lease(lease.job_id, attempt=2)
    with pytest.raises(Replaced):
        report(recorder, 9, 9, {"nce": 2.0})
    with database.reading() as session:
        job = session.get_one(Job, lease.job_id)
        assert (job.stage, job.step) == ("style", 1)
        assert points(session, lease.job_id, "nce") == {1: 1.0}


def test_a_resumed_stage_takes_over_what_was_reported_before_it(
    database: Database, lease: Lease
) -> None:
    recorder = Recorder(database, lease, 60)
    for step in (1, 2, 3):
        report(recorder, step, 9, {"nce": float(step)})
    report(recorder, 9, 9, {"nce": 9.0})  # writes; the state kept last is of step 2
    with database.session() as session:
        seconds = session.get_one(JobStage, (lease.job_id, "style")).seconds
        assert hand_back(session, lease)
        session.commit()
    resumed = claim(database, "there", 60)
    assert resumed is not None
    sleep(0.3)
    began = monotonic()
    recorder = Recorder(database, resumed, 60)
    sleep(0.2)
    report(recorder, 3, 9, {"nce": 33.0})
    ended = monotonic()
    with database.reading() as session:
        assert points(session, lease.job_id, "nce") == {1: 1.0, 2: 2.0, 3: 33.0}
        stage = session.get_one(JobStage, (lease.job_id, "style"))
        assert (stage.step, stage.position, stage.finished) == (3, 1, False)
        assert 0.2 <= stage.seconds - seconds <= ended - began
        assert session.get_one(Job, lease.job_id).steps_per_second == pytest.approx(
            1 / (stage.seconds - seconds), rel=0.01
        )


def test_a_stage_that_begins_anew_forgets_what_was_reported(
    database: Database, lease: Lease
) -> None:
    recorder = Recorder(database, lease, 60)
    sleep(0.2)
    report(recorder, 9, 9, {"nce": 9.0})
    began = monotonic()
    report(Recorder(database, lease, 60), 1, 9, {"nce": 1.0})
    ended = monotonic()
    with database.reading() as session:
        assert points(session, lease.job_id, "nce") == {1: 1.0}
        assert session.get_one(JobStage, (lease.job_id, "style")).seconds <= ended - began


def test_a_worker_that_stops_ends_the_training_after_writing(
    database: Database, lease: Lease
) -> None:
    stopping = Event()
    recorder = Recorder(database, lease, 60, stopping)
    report(recorder, 1, 9)
    stopping.set()
    with pytest.raises(Stop):
        report(recorder, 2, 9)
    with database.reading() as session:
        assert session.get_one(Job, lease.job_id).step == 2


@pytest.fixture
def hurried(sqlite_template: Path, tmp_path: Path) -> Iterator[tuple[Database, Path]]:
    """SQLite that waits a tenth of a second for a lock, and its file."""
    path = tmp_path / "hurried.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{path}")
    event.listen(database.engine, "connect", _hurry)
    yield database, path
    database.close()


def test_training_outlasts_a_database_that_is_away(hurried: tuple[Database, Path]) -> None:
    database, path = hurried
    lease = _lease(database)
    recorder = Recorder(database, lease, patience_seconds=60)
    report(recorder, 1, 9, {"nce": 1.0})
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    sleep(0.6)
    report(recorder, 2, 9, {"nce": 2.0})  # due, and refused
    lock.execute("ROLLBACK")
    lock.close()
    report(recorder, 3, 9, {"nce": 3.0})
    with database.reading() as session:
        assert session.get_one(Job, lease.job_id).step == 3
        assert points(session, lease.job_id, "nce") == {1: 1.0, 2: 2.0, 3: 3.0}


def test_a_database_that_stays_away_ends_the_training(hurried: tuple[Database, Path]) -> None:
    database, path = hurried
    recorder = Recorder(database, _lease(database), patience_seconds=1)
    report(recorder, 1, 9)
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    written = iter(range(2, 9))

    def go_on() -> None:
        for step in written:
            sleep(0.3)
            report(recorder, step, 9)

    with pytest.raises(OperationalError, match="locked"):
        go_on()
    assert next(written) > 3  # not at the first that was refused
    lock.close()


def _hurry(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA busy_timeout = 100")
