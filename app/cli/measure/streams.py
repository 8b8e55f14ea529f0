"""``stylefilter measure streams`` measures how open event streams slow a training and the API."""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import typer
from sqlalchemy import select

from app.cli.console import console
from app.cli.measure.stream_figures import Delays, Figures, Plan, Start, Window, table
from app.cli.options import EMPTY_DATABASE, FIGURES
from app.cli.synthetic.domain import CLASSES, DomainName, write_domain
from app.cli.temporary_service import OwnService, own_service
from app.client.client import Client
from app.client.connection import ApiError, Unavailable
from app.database import Database
from app.datasets.schemas import DatasetCreate, DatasetReport
from app.jobs.event_schemas import ProgressEvent, StageEvent, StateEvent
from app.jobs.request_schemas import AdaptRequest
from app.labels.schemas import DeriveRequest
from app.settings import Settings
from app.tables import Job, JobEvent, JobState

_POLL_SECONDS = 0.01
_SETTLE_SECONDS = 1.0
_PATIENCE_SECONDS = 60
_LINE_BYTES = 1 << 22
_CONFIG = {
    "style": {"steps": 4},
    # This stage is longer than any measurement. Each validation is an event.
    "pretrain": {"steps": 1_000_000, "validate_every_steps": 25},
}


def streams(  # noqa: PLR0913 - options of a command are its parameters
    database_url: Annotated[str | None, EMPTY_DATABASE] = None,
    number: Annotated[
        int, typer.Option(min=1, max=500, help="The number of event streams to open.")
    ] = 200,
    jobs: Annotated[
        int, typer.Option(min=1, help="The number of jobs to measure, one after the other.")
    ] = 3,
    pairs: Annotated[
        int,
        typer.Option(
            min=2, help="The number of pairs of windows: one without, one with open streams."
        ),
    ] = 6,
    seconds: Annotated[float, typer.Option(min=0, help="The length of a window, in seconds.")] = 5,
    out: Annotated[Path | None, FIGURES] = None,
) -> None:
    """Measure how much many open event streams of a job slow its training and the API.

    The command starts a service, which trains in windows of time without and with open streams.
    """
    plan = Plan(streams=number, jobs=jobs, pairs=pairs, seconds=seconds)
    try:
        figures = measure(database_url, plan)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    except ApiError as error:
        console.print(f"[red]The measurement stopped:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
    if out is not None:
        out.write_text(figures.model_dump_json(indent=2))
    console.print(table(figures))


def measure(database_url: str | None, plan: Plan) -> Figures:
    """Start a service, and measure one endless job after the other."""
    if not Path("/proc/self/stat").exists():
        raise ValueError(
            "this computer has no /proc, from which CPU time and memory are read: measure on Linux"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(data_folder=folder / "service", database_url=database_url or "")
        variables = {
            "STYLEFILTER_DATABASE_URL": settings.database_url,
            "STYLEFILTER_BROKER_URL": "",
        }
        with closing(Database(settings.database)) as database:
            database.migrate()
            with database.reading() as session:
                if session.scalar(select(Job.id).limit(1)) is not None:
                    raise ValueError("the database holds jobs already: name an empty database")
            with own_service(folder, variables) as service, Client(service.url) as client:
                return _Measurement(plan, database, service, client).run(folder)


class _Measurement:
    """Measures one service, job after job."""

    def __init__(self, plan: Plan, database: Database, service: OwnService, client: Client) -> None:
        self._plan, self._database = plan, database
        self._service, self._client = service, client
        self._delays: list[float] = []

    def run(self, folder: Path) -> Figures:
        source, target = (self._register(folder, name) for name in ("source", "target"))
        self._client.derive_labels(target.id, DeriveRequest(split="train"))
        pair = {"source": source.id, "target": target.id}
        body = pair | {"preset": "smoke", "reuse": False, "config": _CONFIG}
        request = AdaptRequest.model_validate(body)
        starts, windows = [], []
        for _ in range(self._plan.jobs):
            job_id, start = self._start(request)
            starts.append(start)
            self._mark(job_id)
            for number in range(self._plan.pairs):
                # They take turns, so that a drift of the machine's speed favours neither.
                order = (0, self._plan.streams) if number % 2 == 0 else (self._plan.streams, 0)
                windows += [asyncio.run(self._beside(job_id, streams)) for streams in order]
            self._client.cancel(job_id)
            for _ in self._client.watch(job_id):
                pass
        with_and_without = zip(
            (each.steps_per_second for each in windows if each.streams),
            (each.steps_per_second for each in windows if not each.streams),
            strict=True,
        )
        ratios = [some / none for some, none in with_and_without]
        first, middle, third = quantiles(ratios, n=4, method="inclusive")
        return Figures(
            database=self._database.engine.dialect.name,
            plan=self._plan,
            ratio=middle,
            ratio_quartiles=(first, third),
            delays=Delays(
                arrivals=len(self._delays),
                median=median(self._delays),
                percentile_95=quantiles(self._delays, n=20)[-1],
            ),
            starts=starts,
            windows=windows,
        )

    def _register(self, folder: Path, name: DomainName) -> DatasetReport:
        write_domain(folder / name, name, num_sections=6, size_px=128, seed=1)
        images, masks = (sorted((folder / name / kind).iterdir()) for kind in ("images", "masks"))
        source = name == "source"
        request = DatasetCreate(
            name=name,
            class_names=list(CLASSES),
            pixel_size_nm=4.0 if source else 5.0,
            tile_px=None if source else 64,
        )
        return self._client.upload_dataset(request, images, masks)

    def _start(self, request: AdaptRequest) -> tuple[UUID, Start]:
        """Submit a job and follow it to its first step."""
        submitted = time.time()
        job_id = self._client.adapt(request).id
        claim = stage = step = 0.0
        for event in self._client.events(job_id):
            now = time.time()
            if isinstance(event, StateEvent) and event.state == JobState.RUNNING:
                claim = self._recorded(event.id)
            if isinstance(event, StageEvent | ProgressEvent) and event.stage is not None:
                stage = stage or now
                if event.step > 0:
                    step = now
                    break  # this closes the stream
        if not step:
            raise Unavailable(f"job {job_id} ended before its first step")
        return job_id, Start(
            claim_to_stage=stage - claim,
            claim_to_step=step - claim,
            submission_to_stage=stage - submitted,
            submission_to_step=step - submitted,
        )

    def _recorded(self, event_id: int) -> float:
        with self._database.reading() as session:
            return session.get_one(JobEvent, event_id).created_at.timestamp()

    async def _beside(self, job_id: UUID, streams: int) -> Window:
        """Measure one window of time while ``streams`` streams of the job are open."""
        address = urlsplit(self._service.url)
        request = f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
        opened = []
        for _ in range(streams):
            reader, writer = await asyncio.open_connection(
                address.hostname, address.port, limit=_LINE_BYTES
            )
            writer.write(request)
            opened.append((reader, writer))
        for reader, _ in opened:
            await asyncio.wait_for(reader.readuntil(b"event: progress\n"), _PATIENCE_SECONDS)
        await asyncio.sleep(_SETTLE_SECONDS)
        heard: list[list[float]] = [[] for _ in opened]
        since = time.time()
        tasks = [
            asyncio.create_task(_listen(reader, since, delays))
            for (reader, _), delays in zip(opened, heard, strict=True)
        ]
        window = await asyncio.to_thread(self._window, job_id, streams)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not all(heard):  # a window may be too short for an event
            if time.monotonic() > deadline:
                raise Unavailable(f"no event came for {_PATIENCE_SECONDS} s")
            await asyncio.sleep(0.1)
        if any(task.done() for task in tasks):
            raise Unavailable("a stream ended before its job did")
        self._delays += [delay for delays in heard for delay in delays]
        for task in tasks:
            task.cancel()
        for _, writer in opened:
            writer.close()
        return window

    def _window(self, job_id: UUID, streams: int) -> Window:
        step, began, api, own = self._mark(job_id)
        time.sleep(self._plan.seconds)
        last, ended, api_after, own_after = self._mark(job_id)
        seconds = ended - began
        return Window(
            streams=streams,
            steps_per_second=(last - step) / seconds,
            api_cpu_share=(api_after - api) / seconds,
            api_rss_bytes=_rss_bytes(self._service.pid),
            clients_cpu_share=(own_after - own) / seconds,
        )

    def _mark(self, job_id: UUID) -> tuple[int, float, float, float]:
        """Wait until the job's step changes; return the step, the time and all CPU seconds.

        The CPU seconds are those of the API and of this process.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        before: int | None = None
        for row in self._rows(job_id):
            step = row.step if row.stage == "pretrain" else None
            if None not in (before, step) and step != before:
                assert step is not None
                cpu = _cpu_seconds(self._service.pid)
                return step, time.monotonic(), cpu, time.process_time()
            before = step
            if time.monotonic() > deadline:
                raise Unavailable(f"job {job_id} made no step for {_PATIENCE_SECONDS} s")
        raise AssertionError

    def _rows(self, job_id: UUID) -> Iterator[Any]:
        query = select(Job.stage, Job.step).where(Job.id == job_id)
        while True:
            with self._database.reading() as session:
                yield session.execute(query).one()
            time.sleep(_POLL_SECONDS)


async def _listen(reader: asyncio.StreamReader, since: float, delays: list[float]) -> None:
    """Add the delay of each event that is stored after ``since`` to ``delays``."""
    while True:
        event = await reader.readuntil(b"\n\n")
        if b"\nid: " not in event:
            continue  # progress and log events are not stored
        data = next(line for line in event.splitlines() if line.startswith(b"data: "))
        at = datetime.fromisoformat(json.loads(data[6:])["at"]).timestamp()
        if at > since:
            delays.append(time.time() - at)


def _cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
