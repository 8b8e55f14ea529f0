"""``stylefilter measure claims`` measures how long it takes to hand a job to a worker."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any
from uuid import uuid4

import typer
from pydantic import BaseModel
from rich.table import Table
from sqlalchemy import insert, select

from app.cli.console import console
from app.cli.options import EMPTY_DATABASE, FIGURES
from app.database import Database, now_plus
from app.jobs.transitions import claim, succeed
from app.settings import Settings
from app.tables import Job, JobKind, JobState
from models.config.presets import preset

_ROWS_AT_A_TIME = 20_000


class ClaimFigures(BaseModel):
    """The seconds to claim and end one waiting job, while the table holds ``ended_jobs`` others."""

    ended_jobs: int
    median: float
    percentile_95: float


class Figures(BaseModel):
    """All figures of one run, from the fewest ended jobs to the most."""

    database: str
    waiting_jobs: int
    claims: list[ClaimFigures]
    ratio: float
    """The median with the most ended jobs, divided by the median with the fewest."""


def claims(
    database_url: Annotated[str | None, EMPTY_DATABASE] = None,
    ended: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            help="A number of ended jobs that lie in the table. Give the option once for each "
            "number; without it they are 1000, 100000 and 1000000.",
        ),
    ] = None,
    waiting: Annotated[
        int, typer.Option(min=2, help="The number of waiting jobs to hand out each time.")
    ] = 1000,
    out: Annotated[Path | None, FIGURES] = None,
) -> None:
    """Measure how long the database takes to hand a waiting job to a worker, and to end it.

    The jobs do nothing. The measurement is repeated with more and more ended jobs in the table, to
    show that old jobs do not slow the service down.
    """
    with tempfile.TemporaryDirectory() as folder:
        url = database_url or f"sqlite:///{folder}/stylefilter.db"
        database = Database(Settings(database_url=url).database)
        database.migrate()
        try:
            figures = measure(database, ended or (1_000, 100_000, 1_000_000), waiting)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        finally:
            database.close()
    if out is not None:
        out.write_text(figures.model_dump_json(indent=2))
    console.print(table(figures))


def measure(database: Database, ended_jobs: Sequence[int], waiting_jobs: int) -> Figures:
    """Fill an empty database step by step, and time all claims after each step."""
    with database.reading() as session:
        if session.scalar(select(Job.id).limit(1)) is not None:
            raise ValueError("the database holds jobs already: name an empty database")
    claims: list[ClaimFigures] = []
    ended = 0
    for number in sorted(ended_jobs):
        _add(database, number - ended, state=JobState.SUCCEEDED, finished_at=now_plus())
        _add(database, waiting_jobs, announce_at=now_plus(3600))
        _settle(database)
        seconds = list(_time_claims(database))
        assert len(seconds) == waiting_jobs
        claims.append(
            ClaimFigures(
                ended_jobs=number,
                median=median(seconds),
                percentile_95=quantiles(seconds, n=20)[-1],
            )
        )
        ended = number + waiting_jobs  # the jobs that waited have ended by now
    return Figures(
        database=database.engine.dialect.name,
        waiting_jobs=waiting_jobs,
        claims=claims,
        ratio=claims[-1].median / claims[0].median,
    )


def table(figures: Figures) -> Table:
    """Return the figures as a table."""
    title = f"{figures.database}, {figures.waiting_jobs} waiting jobs: x{figures.ratio:.2f}"
    shown = Table("ended jobs", "ms to claim and end one", "95th percentile", title=title)
    for of in figures.claims:
        shown.add_row(
            f"{of.ended_jobs:,}", f"{of.median * 1000:.2f}", f"{of.percentile_95 * 1000:.2f}"
        )
    return shown


def _add(database: Database, number: int, **columns: Any) -> None:
    statement = insert(Job).values(**columns)
    row = {"kind": JobKind.ADAPT, "config": preset("quick").model_dump()}
    for start in range(0, number, _ROWS_AT_A_TIME):
        count = min(_ROWS_AT_A_TIME, number - start)
        with database.session() as session:
            session.execute(statement, [row | {"id": uuid4()} for _ in range(count)])
            session.commit()


def _settle(database: Database) -> None:
    """Run VACUUM ANALYZE on PostgreSQL, which would run it later by itself after many new rows."""
    if database.engine.dialect.name == "postgresql":
        engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


def _time_claims(database: Database) -> Iterator[float]:
    """Yield the seconds of each claim until no job waits."""
    while True:
        start = time.perf_counter()
        lease = claim(database, "measure", 60)
        if lease is None:
            return
        with database.session() as session:
            assert succeed(session, lease, {})
            session.commit()
        yield time.perf_counter() - start
