"""The doorbell on both brokers; in files, a torn message and a folder that is gone."""

import logging
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from uuid import UUID, uuid4

import pytest
from celery import Celery

from app.jobs.queue import RUN_JOB, JobQueue, make_celery, queue_of
from app.settings import Settings
from app.tables import Lane
from tests.processes import DEADLINE_SECONDS, environment

QUEUE = queue_of(Lane.CPU)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_folder=tmp_path)


@pytest.fixture(params=["files", pytest.param("redis", marks=pytest.mark.services)])
def on_either_broker(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    if request.param == "files":
        return settings
    return settings.model_copy(update={"broker_url": request.getfixturevalue("redis_url")})


def received(celery: Celery, lane: Lane = Lane.CPU) -> list[UUID]:
    """Job ids of all messages that wait, in their order."""
    found = []
    with (
        celery.connection_for_read() as connection,
        connection.SimpleQueue(queue_of(lane)) as queue,
        suppress(queue.Empty),
    ):
        while True:
            message = queue.get_nowait()
            message.ack()
            assert message.headers["task"] == RUN_JOB
            found.append(UUID(message.payload[0][0]))
    return found


def test_jobs_arrive_in_the_order_of_their_announcement(on_either_broker: Settings) -> None:
    queue, ids = JobQueue(on_either_broker), [uuid4() for _ in range(20)]
    for job_id in ids:
        queue.announce(job_id, Lane.CPU)
    assert received(make_celery(on_either_broker)) == ids


@pytest.mark.parametrize("torn", ["", '{"body": "W1tdLCB7fV0='])
def test_a_torn_message_is_passed_over(settings: Settings, torn: str) -> None:
    queue, ids = JobQueue(settings), [uuid4(), uuid4()]
    queue.announce(ids[0], Lane.CPU)
    folder = settings.data_folder / "broker" / "messages"
    (folder / f"00000000000000000000_torn.{QUEUE}.msg").write_text(torn)
    queue.announce(ids[1], Lane.CPU)
    assert received(make_celery(settings)) == ids
    assert list(folder.iterdir()) == []


def test_a_message_that_is_being_written_is_not_seen(settings: Settings) -> None:
    queue, job_id = JobQueue(settings), uuid4()
    folder = settings.data_folder / "broker" / "messages"
    (folder / ".half.partial").write_text("")
    queue.announce(job_id, Lane.CPU)
    assert received(make_celery(settings)) == [job_id]


ANNOUNCE = """
import sys, uuid
from app.jobs.queue import JobQueue
from app.settings import Settings
JobQueue(Settings()).announce(uuid.UUID(sys.argv[1]), "cpu")
"""


@pytest.mark.processes
def test_a_torn_exchange_is_mended(settings: Settings) -> None:
    """In a process of its own: one that has bound the queue already does not look again."""
    celery = make_celery(settings)
    exchange = settings.data_folder / "broker" / "control" / f"{QUEUE}.exchange"
    exchange.write_text("")  # cut off by a crash
    job_id = uuid4()
    command = [sys.executable, "-c", ANNOUNCE, str(job_id)]
    variables = environment({"STYLEFILTER_DATA_FOLDER": str(settings.data_folder)})
    subprocess.run(command, env=variables, check=True, timeout=DEADLINE_SECONDS)
    assert "jobs" in exchange.read_text()
    assert received(celery) == [job_id]


def test_a_broker_that_is_gone_is_logged_not_raised(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    queue = JobQueue(settings)
    rmtree(settings.data_folder / "broker")
    with caplog.at_level(logging.WARNING):
        queue.announce(uuid4(), Lane.CPU)
    assert "announce_failed" in caplog.text


def test_the_broker_says_what_is_wrong(tmp_path: Path) -> None:
    nobody = Settings(data_folder=tmp_path, broker_url="redis://127.0.0.1:1/0")
    queue = JobQueue(nobody)
    problem = queue.problem()
    assert problem is not None
    assert "broker" in problem
    queue.announce(uuid4(), Lane.CPU)  # does not raise: the request has stored its job
    assert JobQueue(Settings(data_folder=tmp_path)).problem() is None


def test_each_lane_has_a_queue_of_its_own(on_either_broker: Settings) -> None:
    queue, job_id = JobQueue(on_either_broker), uuid4()
    queue.announce(job_id, Lane.GPU_TRAIN)
    assert received(make_celery(on_either_broker)) == []
    assert received(make_celery(on_either_broker), Lane.GPU_TRAIN) == [job_id]
