"""The worker as it is started: a Celery process of its own, and what its death leaves."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import Popen
from uuid import UUID

import pytest

from app.jobs.reconciler import Reconciler
from app.tables import UNFINISHED
from tests.processes import PACE, exit_code, processes_of, running, trainer_of, wait_for
from tests.worker.conftest import Service

pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

COMMAND = [sys.executable, "-m", "worker.main"]
TINY = {"style": {"steps": 1}, "pretrain": {"steps": 1}, "adaptation": {"steps": 1}}

Start = Callable[[str], AbstractContextManager["Popen[bytes]"]]


@pytest.fixture
def start(service: Service, tmp_path: Path) -> Start:
    """Starts a worker; the argument names its log."""
    variables = PACE | {
        "STYLEFILTER_DATA_FOLDER": str(service.settings.data_folder),
        "STYLEFILTER_DATABASE_URL": service.settings.database_url,
    }
    return lambda name: running(COMMAND, variables, tmp_path / f"{name}.log")


@pytest.fixture
def reconciler(service: Service) -> Iterator[Reconciler]:
    reconciler = Reconciler(service.database, service.storage, service.queue, service.settings)
    reconciler.start()
    yield reconciler
    reconciler.close()


def ready(tmp_path: Path, name: str) -> None:
    log = tmp_path / f"{name}.log"
    wait_for(lambda: log.exists() and " ready." in log.read_text(), "the worker")


def succeeds(service: Service, job_id: UUID) -> None:
    state = wait_for(
        lambda: (state := service.row(job_id).state) not in UNFINISHED and state,
        "the job's end",
    )
    assert state == "succeeded", service.job(job_id).error


def tidy(service: Service, job_id: UUID) -> None:
    """The second attempt's result is all that stays: seen to by its worker, or the reconciler."""
    wait_for(
        lambda: {path.split("/")[0] for path in service.files(job_id)} == {"logs", "2"},
        "a tidy folder",
    )


def test_torn_files_and_repeated_messages_do_not_stop_a_worker(
    service: Service, start: Start, tmp_path: Path
) -> None:
    broker = service.settings.data_folder / "broker"
    with start("worker") as worker:
        ready(tmp_path, "worker")
        for number, torn in enumerate(("", '{"body": "W1si')):
            (broker / "messages" / f"0000000000000000000{number}_x.jobs.cpu.msg").write_text(torn)
        job_id = service.adapt(**TINY)
        for _ in range(3):
            service.queue.announce(job_id, "cpu")
        succeeds(service, job_id)
        wait_for(lambda: not any((broker / "messages").iterdir()), "the last message")
        assert service.row(job_id).attempt == 1
        assert len(service.models()) == 3
        assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        assert exit_code(worker) == 0
    log = (tmp_path / "worker.log").read_text()
    assert log.count("message_torn") == 2
    assert log.count("job_claimed") == 1
    assert log.count("announced job=") == 4


@pytest.mark.usefixtures("reconciler")
def test_a_lost_message_costs_seconds(service: Service, start: Start, tmp_path: Path) -> None:
    job_id = service.adapt(**TINY)
    for message in (service.settings.data_folder / "broker" / "messages").iterdir():
        message.unlink()
    with start("worker"):
        ready(tmp_path, "worker")
        succeeds(service, job_id)
    assert service.row(job_id).announcements >= 1


@pytest.mark.usefixtures("reconciler")
def test_a_killed_worker_takes_its_trainer_along_and_its_job_is_taken_up_again(
    service: Service, start: Start
) -> None:
    folder = service.settings.data_folder
    job_id = service.adapt(style={"steps": 80})
    with start("worker") as worker:
        wait_for(lambda: service.row(job_id).step, "the first step")
        trainer = trainer_of(folder)
        worker.kill()
        worker.wait()
        wait_for(lambda: trainer not in processes_of(folder), "the trainer's end")
    wait_for(lambda: service.row(job_id).state == "interrupted", "the end of the lease")
    job = service.job(job_id)
    assert job.error is not None
    assert (job.error.code, job.lost_attempts) == ("worker_lost", 1)
    assert service.models() == []
    assert processes_of(folder) == {}
    with start("second"):
        succeeds(service, job_id)
    tidy(service, job_id)
    assert {row.path.split("/")[2] for row in service.models()} == {"2"}


@pytest.mark.usefixtures("reconciler")
@pytest.mark.parametrize(
    ("number", "kill"),
    [(signal.SIGTERM, os.kill), (signal.SIGTERM, os.killpg), (signal.SIGINT, os.killpg)],
)
def test_a_worker_that_is_stopped_hands_its_job_to_the_next(
    service: Service,
    start: Start,
    number: signal.Signals,
    kill: Callable[[int, int], None],
) -> None:
    """Told alone, by systemd with all of its group, or by Ctrl-C in its terminal."""
    folder = service.settings.data_folder
    job_id = service.adapt(style={"steps": 80})
    with start("first") as first:
        wait_for(lambda: service.row(job_id).step, "the first step")
        assert os.getpgid(trainer_of(folder)) != first.pid
        kill(first.pid, number)
        assert exit_code(first) == 0
    assert processes_of(folder) == {}
    assert service.row(job_id).state == "queued"
    with start("second") as second:
        succeeds(service, job_id)
        second.send_signal(signal.SIGTERM)
        assert exit_code(second) == 0
    assert service.row(job_id).attempt == 2
    tidy(service, job_id)
    assert {row.path.split("/")[2] for row in service.models()} == {"2"}
