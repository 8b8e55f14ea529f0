"""A stop of the service while clients listen to streams."""

import os
import signal
import socket
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import pytest

from app.client.client import Client
from app.database import Database
from app.jobs.event_schemas import StateEvent
from app.jobs.transitions import succeed
from app.settings import Settings
from app.tables import Job, JobKind
from tests.app.streams import ask, claimed, do, service, stored, train
from tests.processes import DEADLINE_SECONDS, exit_code, join, running, wait_for
from tests.services import free_port

pytestmark = pytest.mark.processes


def test_open_streams_do_not_delay_a_stop_and_clients_go_on_with_the_next(
    settings: Settings, database: Database, job_id: UUID
) -> None:
    port, heard, failed = free_port(), [], []

    def follow(url: str) -> None:
        try:
            with Client(url) as client:
                heard.extend(client.events(job_id, patience_seconds=DEADLINE_SECONDS))
        except BaseException as error:  # for the test's own thread
            failed.append(error)
            raise

    with service(settings, port) as (process, url):
        follower = threading.Thread(target=follow, args=(url,))
        follower.start()
        wait_for(lambda: heard, "the first event")
        with ExitStack() as stack:
            for _ in range(20):
                address = ("127.0.0.1", port)
                stream = stack.enter_context(
                    socket.create_connection(address, timeout=DEADLINE_SECONDS)
                )
                stream.sendall(ask(job_id))
                assert stream.recv(100).startswith(b"HTTP/1.1 200")
            process.send_signal(signal.SIGTERM)
            exit_code(process)  # without a limit of its own: an open stream would hold it for ever
    lease = claimed(database)
    with service(settings, port):
        train(database, lease, 1)
        do(database, succeed, lease, {})
        join(follower)
    assert failed == []
    recorded = [one.id for one in heard if hasattr(one, "id")]
    assert recorded == stored(database, job_id)
    states = [one.state for one in heard if isinstance(one, StateEvent)]
    assert states == ["queued", "running", "succeeded"]
    assert "Traceback" not in (settings.data_folder.parent / "service.log").read_text()


@pytest.mark.slow
def test_ctrl_c_ends_up_with_open_streams(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "up.log"
    data = tmp_path / "data"
    command = [sys.executable, "-m", "app.cli.main", "up", "--port", str(port)]
    with running(command, {"STYLEFILTER_DATA_FOLDER": str(data)}, log) as process:
        with Client(f"http://127.0.0.1:{port}") as client:
            wait_for(client.ready, "the service")
        database = Database(f"sqlite:///{data / 'stylefilter.db'}")
        with database.session() as session:
            job = Job(kind=JobKind.ADAPT, config={}, announce_at=None)
            session.add(job)
            session.commit()
        database.close()
        address = ("127.0.0.1", port)
        streams = [socket.create_connection(address, timeout=DEADLINE_SECONDS) for _ in range(5)]
        for stream in streams:
            stream.sendall(ask(job.id))
            assert stream.recv(10)
        os.killpg(process.pid, signal.SIGINT)
        exit_code(process)
        assert "timeout graceful shutdown" not in log.read_text()
        for stream in streams:
            stream.close()
