"""The database goes away while clients listen, and comes back: nothing lost, nothing twice."""

import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from app.client.client import Client
from app.client.connection import ApiError
from app.database import Database
from app.jobs.event_schemas import EventRead
from app.jobs.transitions import succeed
from app.settings import Settings
from tests.app.files import problem
from tests.app.records import add_waiting
from tests.app.streams import Stream, claimed, do, ids, service, stored, tell
from tests.processes import DEADLINE_SECONDS, exit_code, join, running, wait_for
from tests.services import NoService, OwnPostgres, free_port, own_postgres, without

pytestmark = [pytest.mark.processes, pytest.mark.services, pytest.mark.slow]


@dataclass(frozen=True)
class World:
    """A server of PostgreSQL that may be stopped, and the service on it."""

    server: OwnPostgres
    database: Database
    url: str
    log: Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    try:
        with own_postgres() as server:
            settings = Settings(data_folder=tmp_path / "data", database_url=server.url)
            database = Database(settings.database)
            database.migrate()
            with service(settings, free_port()) as (_, url):
                yield World(server, database, url, tmp_path / "service.log")
            database.close()
    except NoService as error:
        without(str(error))


class Follower(threading.Thread):
    """The Python client's stream, until the job has ended."""

    def __init__(self, url: str, job_id: UUID) -> None:
        super().__init__()
        self.heard: list[EventRead] = []
        self._url, self._job_id = url, job_id
        self.start()

    def run(self) -> None:
        with Client(self._url) as client:
            self.heard.extend(client.events(self._job_id))

    @property
    def ids(self) -> list[int]:
        return [event.id for event in self.heard if hasattr(event, "id")]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_streams_tell_each_event_once(world: World, how: signal.Signals, tmp_path: Path) -> None:
    job_id, drawn = add_waiting(world.database), tmp_path / "watch.log"
    command = [
        sys.executable,
        "-m",
        "app.cli.main",
        "jobs",
        "watch",
        str(job_id),
        "--url",
        world.url,
    ]
    with httpx.Client(base_url=world.url) as api, running(command, {}, drawn) as watch:
        stream, follower = Stream(api, job_id), Follower(world.url, job_id)
        lease = claimed(world.database)
        wait_for(lambda: "running, attempt 1" in drawn.read_text(), "the watch")
        for outage in range(2):
            heard = tell(world.database, job_id, 3)
            stream.until(lambda told, last=heard[-1]: told.id == last)
            tell(world.database, job_id, 3)  # most likely nobody has read them
            world.server.stop(how)
            wait_for(
                lambda outage=outage: world.log.read_text().count("events_not_read") > outage,
                "the service to notice",
            )
            problem(api.get(f"/jobs/{job_id}/events"), 503)
            world.server.start()
            tell(world.database, job_id, 3)
            if outage:
                do(world.database, succeed, lease, {})
        told = ids(stream.end())
        join(follower)
        assert told == follower.ids == stored(world.database, job_id)
        assert len(told) == 3 + 2 * 9
        assert exit_code(watch) == 0, drawn.read_text()
    lines = [line.strip() for line in drawn.read_text().splitlines()]
    said = [line for line in lines if line in ("queued", "running, attempt 1")]
    assert said == ["queued", "running, attempt 1"]
    assert lines.count("succeeded, attempt 1") == 1
    log = world.log.read_text()
    assert "Traceback" not in log + drawn.read_text()
    # Once an outage, not at every look.
    assert (log.count("events_not_read"), log.count("events_read_again")) == (2, 2)


def test_the_client_asks_again_for_a_job(world: World) -> None:
    job_id = add_waiting(world.database)
    with Client(world.url) as client:
        world.server.stop()
        with pytest.raises(ApiError, match="database"):
            client.job(job_id)
        later = threading.Timer(1.5, world.server.start)
        later.start()
        assert client.job(job_id, patience_seconds=DEADLINE_SECONDS).id == job_id
        later.join()
