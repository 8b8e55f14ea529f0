"""The schema: migrations match the tables, on both engines, and go both ways."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import delete, func, inspect, select, table, text

from app.database import Database, now_plus
from app.tables import Dataset, Job, MetricPoint, Table, TrainedModel


def test_migrations_build_exactly_the_tables(database: Database) -> None:
    # SQLite does not tell that a column of an index descends; a test of claims looks at the plan.
    hidden = {"ix_jobs_waiting"} if database.engine.dialect.name == "sqlite" else set()
    options = {
        "compare_type": True,
        "include_object": lambda _object, name, *_: name not in hidden,
    }
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Table.metadata) == []


def test_downgrade_removes_and_upgrade_rebuilds(database: Database) -> None:
    command.downgrade(database.alembic_config(), "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    assert "run `stylefilter migrate`" in (database.revision_problem() or "")
    database.migrate()
    database.migrate()
    assert set(Table.metadata.tables) < set(inspect(database.engine).get_table_names())
    assert database.revision_problem() is None


_ROWS_OF_0001 = (
    "INSERT INTO datasets (id, name, class_names, pixel_size_nm, dtype, window_low, window_high,"
    " digest, num_bytes, num_sections, num_masks, num_images, sections, created_at) VALUES"
    " (:dataset, 'd', '[]', 4, 'uint8', 0, 255, '', 1, 0, 0, 0, '[]', :now)",
    "INSERT INTO jobs (id, kind, state, config, source_id, stylise, split, step, total, fence,"
    " announcements, announce_at, created_at) VALUES"
    " (:job, 'pretrain', 'running', '{}', :dataset, true, 'test', 1, 2, 1, 0, :now, :now)",
    "INSERT INTO job_stages VALUES (:job, 'pretrain', 1, 1, 2, 0.5, false)",
    "INSERT INTO metric_points VALUES (:job, 'pretrain', 'loss', 1, 0.5)",
    "INSERT INTO trained_models (id, kind, job_id, source_id, path, class_names, config, metrics,"
    " created_at) VALUES (:job, 'segmenter', :job, :dataset, 'p', '[]', '{}', '{}', :now)",
)


def test_rows_survive_the_migrations_up_and_down(database: Database) -> None:
    config = database.alembic_config()
    command.downgrade(config, "0001")
    values = {"job": uuid4().hex, "dataset": uuid4().hex, "now": "2026-01-01 00:00:00"}
    with database.engine.begin() as connection:
        for statement in _ROWS_OF_0001:
            connection.execute(text(statement), values)
    try:
        for move, revision in (
            (command.upgrade, "0002"),
            (command.upgrade, "head"),
            (command.downgrade, "0001"),
            (command.upgrade, "head"),
        ):
            move(config, revision)
            tables = ("datasets", "jobs", "job_stages", "metric_points", "trained_models")
            with database.reading() as session:
                found = [session.scalar(select(func.count()).select_from(table(t))) for t in tables]
            assert found == [1] * 5
    finally:
        command.upgrade(config, "head")
    with database.session() as session:
        job = session.scalars(select(Job)).one()
        assert (job.state, job.lane, job.priority, job.announce_at) == ("running", "cpu", 0, None)
        session.execute(delete(TrainedModel))
        session.execute(delete(Job))  # takes its metrics along: foreign keys are on again
        session.commit()
        assert session.scalar(select(func.count()).select_from(MetricPoint)) == 0


def test_database_clock_is_utc_and_moves_by_seconds(database: Database) -> None:
    with database.reading() as session:
        now, later = session.execute(select(now_plus(), now_plus(90))).one()
    if now.tzinfo is None:
        now, later = now.replace(tzinfo=UTC), later.replace(tzinfo=UTC)
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)
    assert timedelta(seconds=89.9) < later - now < timedelta(seconds=90.1)


def test_times_come_back_aware_in_utc(database: Database) -> None:
    with database.session() as session:
        session.add(
            Dataset(
                name="a",
                class_names=["x", "y"],
                pixel_size_nm=4,
                dtype="uint8",
                window_low=0,
                window_high=255,
                digest="",
                num_bytes=3_000_000_000,
                num_sections=0,
                num_masks=0,
                num_images=0,
                sections=[],
            )
        )
        session.commit()
        stored = session.scalars(select(Dataset)).one()
        session.refresh(stored)
    assert stored.created_at.tzinfo == UTC
    assert abs(stored.created_at - datetime.now(UTC)) < timedelta(seconds=5)
    assert stored.num_bytes == 3_000_000_000


def test_writing_sessions_wait_for_each_other_on_sqlite(database: Database) -> None:
    if database.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL locks rows, not the database")
    with database.session() as first, database.reading() as reader:
        first.execute(select(func.count()).select_from(Dataset))
        # A reader neither waits for the writer nor blocks it.
        assert reader.scalar(select(func.count()).select_from(Dataset)) == 0
        assert database.revision_problem() is None
