"""Curves of metrics: whole while they are short, sampled in the database when they are long."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import event, insert
from sqlalchemy.orm import Session

from app.client.client import Client
from app.client.connection import ApiError
from app.database import Database
from app.jobs import service
from app.jobs.curves import MetricsQuery
from app.jobs.schemas import Series
from app.tables import Job, JobKind, MetricPoint
from models.config.presets import preset
from tests.app.files import tells, wrong


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_job(database)


def add_job(database: Database) -> UUID:
    with database.session() as session:
        job = Job(kind=JobKind.ADAPT, config=preset("smoke").model_dump(mode="json"))
        session.add(job)
        session.commit()
        return job.id


def value(step: int) -> float:
    return (step * 7919 % 10_007) / 10_007


def store(
    database: Database, job_id: UUID, name: str, steps: Iterable[int], stage: str = "style"
) -> None:
    rows = [
        {"job_id": job_id, "stage": stage, "name": name, "step": step, "value": value(step)}
        for step in steps
    ]
    with database.session() as session:
        session.execute(insert(MetricPoint), rows)
        session.commit()


@contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, object]]]:
    seen: list[tuple[str, object]] = []

    def note(*arguments: object) -> None:
        seen.append((str(arguments[2]), arguments[3]))

    event.listen(database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine, "before_cursor_execute", note)


@contextmanager
def fetched(database: Database) -> Iterator[list[int]]:
    """Counts the rows that the driver gives to this process."""
    count = [0]

    def one(_cursor: object, row: tuple[object, ...]) -> tuple[object, ...]:
        count[0] += 1
        return row

    def after(*arguments: object) -> None:
        cursor = arguments[1]
        if database.engine.dialect.name == "sqlite":
            cursor.row_factory = one  # type: ignore[attr-defined]
        else:
            count[0] += cursor.rowcount  # type: ignore[attr-defined]

    event.listen(database.engine, "after_cursor_execute", after)
    yield count
    event.remove(database.engine, "after_cursor_execute", after)


def read(session: Session, job_id: UUID, points: int, **window: int) -> dict[str, Series]:
    found = service.metrics(session, job_id, MetricsQuery(points=points, **window)).series
    return {f"{series.stage}/{series.name}": series for series in found}


@pytest.mark.parametrize("points", [3, 4, 10, 99, 100, 1000, 6666])
def test_a_long_series_is_sampled_from_its_first_point_to_its_last(
    database: Database, job_id: UUID, points: int
) -> None:
    steps = range(5, 20_005, 3)
    store(database, job_id, "nce", steps)
    with database.reading() as session, fetched(database) as rows:
        series = read(session, job_id, points)["style/nce"]
    assert series.thinned
    assert (series.steps[0], series.steps[-1]) == (5, 20_003)
    assert points / 2 < len(series.steps) <= points
    assert set(series.steps) <= set(steps)
    assert series.steps == sorted(set(series.steps))
    assert series.values == [value(step) for step in series.steps]
    gaps = [after - before for before, after in zip(series.steps, series.steps[1:], strict=False)]
    assert max(gaps) - min(gaps[:-1]) <= 3
    # Beyond the points: the two ends, the look for one too many, and the series' names.
    assert rows[0] <= points + 5


def test_a_series_as_long_as_asked_for_is_whole(database: Database, job_id: UUID) -> None:
    store(database, job_id, "nce", range(1, 51))
    with database.reading() as session:
        assert read(session, job_id, 50)["style/nce"] == Series(
            stage="style",
            name="nce",
            thinned=False,
            steps=list(range(1, 51)),
            values=[value(step) for step in range(1, 51)],
        )
        assert read(session, job_id, 49)["style/nce"].thinned


def test_each_series_has_points_of_its_own(database: Database, job_id: UUID) -> None:
    """Scores far apart stay beside a loss that is sampled, and others' points do not count."""
    store(database, job_id, "nce", range(1, 5001))
    store(database, job_id, "dice/mean", range(100, 5001, 100))
    store(database, job_id, "nce", range(1, 5001), stage="adapt")
    store(database, job_id, "aaa", [7], stage="pretrain")
    store(database, add_job(database), "zzz", range(1, 100))
    with database.reading() as session, fetched(database) as rows:
        found = read(session, job_id, 60)
    assert list(found) == ["adapt/nce", "pretrain/aaa", "style/dice/mean", "style/nce"]
    assert found["style/dice/mean"].steps == list(range(100, 5001, 100))
    assert [series.thinned for series in found.values()] == [True, False, False, True]
    assert found["style/nce"].steps == found["adapt/nce"].steps
    assert rows[0] <= 60 + 1 + 50 + 60 + 4 * 5


def test_points_in_heaps_are_sampled_by_distance(database: Database, job_id: UUID) -> None:
    store(database, job_id, "nce", [*range(1, 1001), 900_000, *range(999_000, 1_000_001)])
    with database.reading() as session:
        series = read(session, job_id, 100)["style/nce"]
    assert series.steps == [1, 900_000, 999_000, 1_000_000]


@pytest.mark.parametrize(
    ("window", "steps"),
    [
        ({"from_step": 40}, range(41, 102, 3)),
        ({"to_step": 41}, range(2, 42, 3)),
        ({"from_step": 41, "to_step": 50}, [41, 44, 47, 50]),
        ({"from_step": 42, "to_step": 49}, [44, 47]),
        ({"from_step": 44, "to_step": 44}, [44]),
        ({"from_step": 45, "to_step": 46}, []),
        ({"from_step": 102}, []),
        ({"to_step": 0}, []),
        ({"from_step": 0, "to_step": 2**31 - 1}, range(2, 102, 3)),
    ],
)
def test_a_window_has_both_its_ends(
    database: Database, job_id: UUID, window: dict[str, int], steps: Iterable[int]
) -> None:
    store(database, job_id, "nce", range(2, 102, 3))
    with database.reading() as session:
        series = read(session, job_id, 100, **window)["style/nce"]
    assert (series.steps, series.thinned) == (list(steps), False)
    assert series.values == [value(step) for step in steps]


def test_a_window_of_a_thinned_series_is_finer(database: Database, job_id: UUID) -> None:
    store(database, job_id, "nce", range(1, 20_001))
    store(database, job_id, "other", range(1, 20_001))
    gaps = {}
    for window in ((0, 20_000), (5_000, 15_000), (9_001, 11_000), (10_000, 10_099)):
        with database.reading() as session, fetched(database) as rows:
            first, last = window
            found = read(session, job_id, 100, from_step=first, to_step=last)
        series = found["style/nce"]
        assert (series.steps[0], series.steps[-1]) == (max(first, 1), last)
        assert series.values == [value(step) for step in series.steps]
        assert series.thinned == (window != (10_000, 10_099))
        assert found["style/other"].steps == series.steps
        assert 50 < len(series.steps) <= 100
        assert rows[0] <= 2 * (100 + 3) + 3
        gaps[window] = series.steps[1] - series.steps[0]
    assert list(gaps.values()) == [203, 102, 21, 1]


@pytest.mark.parametrize("window", [{}, {"from_step": 1500, "to_step": 2000}])
def test_no_statement_passes_over_a_whole_series(
    database: Database, job_id: UUID, window: dict[str, int]
) -> None:
    """All seek in the primary key: by the plan alone, and before any statistics are gathered."""
    store(database, job_id, "nce", range(1, 3001))
    with database.reading() as session, statements(database) as seen:
        read(session, job_id, 100, **window)
        ran = [each for each in seen if "metric_points" in each[0]]
    assert len(ran) == 6
    sqlite = database.engine.dialect.name == "sqlite"
    explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
    with database.reading() as session:
        connection = session.connection()
        for statement, values in ran:
            plan = connection.exec_driver_sql(explain + statement, values)  # type: ignore[arg-type]
            lines = [str(row[-1]).strip() for row in plan]
            scans = [line for line in lines if "metric_points" in line and "Cond" not in line]
            assert scans
            for line in scans:
                key = "autoindex_metric_points_1 (job_id=?" if sqlite else "using pk_metric_points"
                assert key in line, lines
            assert not any("Hash Join" in line or "Merge Join" in line for line in lines)
            # Bounds of the steps are sought in the key too, and nothing is left out afterwards.
            filters = [line for line in lines if line.startswith("Filter") and "step" in line]
            assert filters in ([], [f"Filter: (step < {window.get('to_step', 3000)})"]), lines
            if sqlite and "step >=" in statement:
                ranges = [line for line in scans if "step=?" not in line]
                assert all("step>? AND step<?" in line for line in ranges), lines


def test_the_number_of_points_is_asked_for_over_http(
    api: httpx.Client, database: Database, job_id: UUID
) -> None:
    store(database, job_id, "nce", range(1, 2001))
    path = f"/jobs/{job_id}/metrics"
    for query, most in (({}, 1000), ({"points": 10}, 10), ({"points": 10_000}, 2000)):
        (series,) = api.get(path, params=query).json()["series"]
        assert most / 2 < len(series["steps"]) <= most
        assert len(series["values"]) == len(series["steps"])
        assert series["thinned"] == (most < 2000)
    for refused in (2, 10_001):
        assert list(wrong(api.get(path, params={"points": refused}))) == ["query.points"]


def test_a_window_is_asked_for_over_http_and_by_the_client(
    api: httpx.Client, database: Database, job_id: UUID
) -> None:
    store(database, job_id, "nce", range(1, 2001))
    store(database, job_id, "nce", range(1, 11), stage="adapt")
    path = f"/jobs/{job_id}/metrics"
    query = {"stage": "style", "from_step": 501, "to_step": 1000, "points": 100}
    (series,) = api.get(path, params=query).json()["series"]
    assert (series["thinned"], series["steps"]) == (True, [*range(501, 1000, 6), 1000])
    with Client(str(api.base_url)) as client:
        (found,) = client.metrics(job_id, MetricsQuery.model_validate(query)).series
        assert found == Series.model_validate(series)
        everything = client.metrics(job_id, MetricsQuery(points=2000)).series
        assert [(of.stage, len(of.steps)) for of in everything] == [("adapt", 10), ("style", 2000)]
        with pytest.raises(ApiError, match="no job"):
            client.metrics(uuid4(), MetricsQuery())
    refused = wrong(api.get(path, params={"from_step": 1001, "to_step": 1000}))
    tells(refused, {"query.to_step": (1000, "from_step", 1001)})
    for name in ("from_step", "to_step"):
        for bad in (-1, 2**31, "x"):
            assert list(wrong(api.get(path, params={name: bad}))) == [f"query.{name}"]
    both = wrong(api.get(path, params={"from_step": -1, "to_step": 5}))
    assert list(both) == ["query.from_step"]
