"""Streams of events as clients read them, and what is told in them."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import select

from app.client.client import Client
from app.database import Database
from app.jobs.transitions import Lease, claim, record, write
from app.settings import Settings
from app.storage import Storage
from app.tables import JobEvent, JobStage, MetricPoint
from tests.processes import DEADLINE_SECONDS, join, running, wait_for


@dataclass(frozen=True)
class Told:
    """One event as it came."""

    kind: str
    data: dict[str, Any]
    id: int | None = None


def parsed(lines: Iterator[str]) -> Iterator[Told]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            if "event" in fields:
                told = int(fields["id"]) if "id" in fields else None
                yield Told(fields["event"], json.loads(fields["data"]), told)
            fields = {}


class Stream:
    """A stream that is read by a thread of its own."""

    def __init__(self, api: httpx.Client, job_id: UUID, after: int | None = None) -> None:
        self.told: list[Told] = []
        self.headers = httpx.Headers()
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        url = f"{api.base_url}/jobs/{job_id}/events"
        self._client = httpx.Client(timeout=DEADLINE_SECONDS, verify=False)
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(url, headers))
        self._thread.start()
        assert self._open.wait(DEADLINE_SECONDS)

    def _read(self, url: str, headers: dict[str, str]) -> None:
        with self._client, self._client.stream("GET", url, headers=headers) as response:
            assert response.status_code == 200
            self.headers = response.headers
            self._open.set()
            for told in parsed(response.iter_lines()):
                self.told.append(told)

    def until(self, condition: Callable[[Told], bool]) -> Told:
        return wait_for(lambda: next(filter(condition, self.told), None), "an event")

    def end(self) -> list[Told]:
        """All that was told, after the service has closed the stream."""
        join(self._thread)
        return self.told


def claimed(database: Database) -> Lease:
    lease = claim(database, "here", 600)
    assert lease is not None
    return lease


def do(database: Database, transition: Callable[..., Any], *arguments: Any) -> Any:
    with database.session() as session:
        done = transition(session, *arguments)
        session.commit()
    return done


def tell(database: Database, job_id: UUID, count: int, padding: str = "") -> list[int]:
    """Events that change nothing; their ids."""
    data = {"priority": 0, "padding": padding}
    with database.session() as session:
        told = [record(session, job_id, "priority", data) for _ in range(count)]
        session.commit()
    return told


def stored(database: Database, job_id: UUID) -> list[int]:
    query = select(JobEvent.id).where(JobEvent.job_id == job_id).order_by(JobEvent.id)
    with database.reading() as session:
        return list(session.scalars(query))


def ids(told: list[Told]) -> list[int]:
    return [one.id for one in told if one.id is not None]


@contextmanager
def service(settings: Settings, port: int) -> Iterator[tuple[Any, str]]:
    """The API alone, as docker-compose.yml starts it: without a limit to its shutdown."""
    variables = {
        "STYLEFILTER_DATA_FOLDER": str(settings.data_folder),
        "STYLEFILTER_DATABASE_URL": settings.database_url,
    }
    command = [sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory"]
    log = settings.data_folder.parent / "service.log"
    with running([*command, "--port", str(port)], variables, log) as process:
        url = f"http://127.0.0.1:{port}"
        with Client(url) as client:
            wait_for(client.ready, "the service")
        yield process, url


def train(database: Database, lease: Lease, step: int, total: int = 4, **losses: float) -> None:
    """A report as the trainer makes it."""
    with database.session() as session:
        write(session, lease, stage="style", step=step, total=total, steps_per_second=2.0)
        stage = {"stage": "style", "step": step, "total": total}
        session.merge(
            JobStage(job_id=lease.job_id, position=0, seconds=step / 2, finished=False, **stage)
        )
        for name, value in losses.items():
            point = MetricPoint(job_id=lease.job_id, stage="style", name=name, step=step)
            point.value = value
            session.add(point)
        if step in (1, total):
            data = stage | {"done": step == total, "attempt": lease.attempt}
            record(session, lease.job_id, "stage", data)
        session.commit()


def ask(job_id: UUID) -> bytes:
    return f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def log_of(storage: Storage, lease: Lease) -> Path:
    path = storage.log(lease.job_id, lease.attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
