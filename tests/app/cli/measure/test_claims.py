"""A thousand jobs and twenty workers' worth of claims: each job is taken once, none is lost."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import event, insert, select, text

from app.cli.measure.claims import measure, table
from app.database import Database, now_plus
from app.jobs.transitions import Lease, claim, succeed
from app.tables import Job, JobEvent, JobKind, JobState
from models.config.presets import preset

JOBS, WORKERS = 1000, 20


def test_a_claim_takes_the_first_entry_of_its_index(database: Database) -> None:
    """However many jobs wait or have ended: no sorting, and no look at any other index."""
    config = preset("smoke").model_dump(mode="json")
    rows = [{"kind": JobKind.ADAPT, "config": config, "priority": n % 7} for n in range(JOBS)]
    sqlite = database.engine.dialect.name == "sqlite"
    with database.session() as session:
        session.execute(insert(Job).values(announce_at=now_plus(3600)), rows)
        if not sqlite:
            session.execute(text("ANALYZE"))
        session.commit()
    seen: list[tuple[str, Any]] = []

    def note(*arguments: Any) -> None:
        seen.append((arguments[2], arguments[3]))

    event.listen(database.engine, "before_cursor_execute", note)
    assert claim(database, "here", 60) is not None
    event.remove(database.engine, "before_cursor_execute", note)
    (update,) = (each for each in seen if each[0].startswith("UPDATE jobs"))
    explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
    with database.reading() as session:
        plan = session.connection().exec_driver_sql(explain + update[0], update[1])
        lines = [str(row[-1]).strip() for row in plan]
    assert any("ix_jobs_waiting" in line for line in lines), lines
    assert not any("Sort" in line or "TEMP B-TREE" in line for line in lines), lines


@pytest.mark.slow
def test_many_workers_take_each_job_once(database: Database) -> None:
    config = preset("smoke").model_dump(mode="json")
    rows = [{"kind": JobKind.ADAPT, "config": config, "priority": n % 7} for n in range(JOBS)]
    with database.session() as session:
        session.execute(insert(Job).values(announce_at=now_plus(3600)), rows)
        session.commit()
    barrier = Barrier(WORKERS)

    def work(number: int) -> list[Lease]:
        own, taken = Database(database.url.render_as_string(hide_password=False)), []
        barrier.wait()
        while (lease := claim(own, f"worker {number}", 60)) is not None:
            with own.session() as session:
                assert succeed(session, lease, {})
                session.commit()
            taken.append(lease)
        own.close()
        return taken

    with ThreadPoolExecutor(WORKERS) as threads:
        by_worker = list(threads.map(work, range(WORKERS)))
    leases = [lease for taken in by_worker for lease in taken]
    with database.reading() as session:
        ended = set(session.scalars(select(Job.id).where(Job.state == JobState.SUCCEEDED)))
        attempts = set(session.scalars(select(Job.attempt)))
        events = Counter(session.scalars(select(JobEvent.job_id)))
    assert len(ended) == len(leases) == JOBS
    assert {lease.job_id for lease in leases} == ended
    assert attempts == {1}
    assert set(events.values()) == {2}


def test_the_benchmark_ends_all_jobs_and_refuses_a_used_database(database: Database) -> None:
    figures = measure(database, [30, 5], waiting_jobs=4)
    assert [of.ended_jobs for of in figures.claims] == [5, 30]
    assert all(0 < of.median <= of.percentile_95 for of in figures.claims)
    assert figures.ratio == figures.claims[1].median / figures.claims[0].median
    with database.reading() as session:
        assert session.scalars(select(Job.state)).all() == [JobState.SUCCEEDED] * 34
    assert table(figures).row_count == 2
    with pytest.raises(ValueError, match="empty"):
        measure(database, [1], 1)
