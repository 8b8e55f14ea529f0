"""`stylefilter jobs watch`, against the running service."""

import io
import os
import signal
import sys
import threading
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from rich.console import Console

from app.cli.watch import run_watch
from app.database import Database
from app.jobs import orders
from app.jobs.transitions import Failure, Lease, claim, fail, record, succeed, write
from app.settings import Settings
from app.storage import Storage
from app.tables import Job, JobKind, JobStage
from tests.app.records import add_waiting
from tests.processes import exit_code, running, wait_for


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_waiting(database)


def trained(database: Database, storage: Storage) -> Lease:
    """A job at the end of its first stage."""
    lease = claim(database, "here", 600)
    assert lease is not None
    log = storage.log(lease.job_id, lease.attempt)
    log.parent.mkdir(parents=True)
    log.write_text("said [by the trainer]\n")
    stage = {"stage": "style", "step": 8, "total": 8}
    with database.session() as session:
        prepared = stage | {"step": 0, "done": False, "attempt": 1}
        record(session, lease.job_id, "stage", prepared)
        write(session, lease, **stage)
        session.add(JobStage(job_id=lease.job_id, position=0, seconds=5, finished=True, **stage))
        scores = {"scores": {"dice/mean": 0.5, "dice/none": None}, "attempt": 1}
        record(session, lease.job_id, "validation", stage | scores)
        record(session, lease.job_id, "stage", stage | {"done": True, "attempt": 1})
        session.commit()
    return lease


def watched(api: httpx.Client, job_id: UUID) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=120)
    code = run_watch(str(api.base_url), job_id, console)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


def test_a_benchmark_is_drawn_by_its_parts(
    api: httpx.Client, database: Database, job_id: UUID
) -> None:
    with database.session() as session:
        session.get_one(Job, job_id).kind = JobKind.BENCHMARK
        session.commit()
    ids = [add_waiting(database, parent_id=job_id, plan={}) for _ in range(3)]
    for part in ids[:2]:
        assert api.post(f"/jobs/{part}/cancel").status_code == 202
    assert api.get(f"/jobs/{job_id}").json()["parts"] == {"ended": 2, "total": 3}
    with database.session() as session:
        orders.cancel(session, job_id)
        session.commit()
    code, text = watched(api, job_id)
    assert code == 3
    (drawn,) = [line for line in text.splitlines() if line.startswith("parts")]
    assert "2/3" in drawn


def test_a_job_is_drawn_until_it_has_succeeded(
    api: httpx.Client, database: Database, settings: Settings, job_id: UUID
) -> None:
    lease = trained(database, Storage(settings.data_folder))

    def end() -> None:
        with database.session() as session:
            succeed(session, lease, {})
            session.commit()

    later = threading.Timer(1.5, end)
    later.start()
    code, text = watched(api, job_id)
    later.join()
    assert code == 0
    lines = [line.rstrip() for line in text.splitlines()]
    said = [
        "queued",
        "running, attempt 1",
        "style is being prepared: 8 steps",
        "style validated at step 8: dice/mean 0.500, dice/none -",
        "style is done",
        "  | said [by the trainer]",
        "succeeded, attempt 1",
    ]
    assert [line for line in lines if line in said] == said
    assert any(line.startswith("style") and "8/8" in line and "5 s" in line for line in lines)


def test_other_ends_have_other_codes(api: httpx.Client, database: Database, job_id: UUID) -> None:
    lease = claim(database, "here", 600)
    assert lease is not None
    with database.session() as session:
        fail(session, lease, Failure("code", "the reason"))
        session.commit()
    code, text = watched(api, job_id)
    assert code == 1
    assert "failed, attempt 1: the reason" in text
    with database.session() as session:
        orders.retry(session, job_id)
        orders.cancel(session, job_id)
        session.commit()
    assert watched(api, job_id)[0] == 3
    code, text = watched(api, uuid4())
    assert code == 2
    assert "no job" in text
    console = Console(file=io.StringIO())
    assert run_watch("http://127.0.0.1:1", job_id, console) == 2


@pytest.mark.processes
def test_ctrl_c_leaves_the_job_alone(
    api: httpx.Client, database: Database, job_id: UUID, tmp_path: Path
) -> None:
    log = tmp_path / "watch.log"
    command = [sys.executable, "-m", "app.cli.main", "jobs", "watch", str(job_id)]
    with running([*command, "--url", str(api.base_url)], {}, log) as watch:
        wait_for(lambda: "queued" in log.read_text(), "the first event")
        os.killpg(watch.pid, signal.SIGINT)
        assert exit_code(watch) == 130
    assert "goes on" in log.read_text()
    assert "Traceback" not in log.read_text()
    with database.reading() as session:
        assert session.get_one(Job, job_id).state == "queued"
