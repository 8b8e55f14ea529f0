"""The demo as it is started in a terminal."""

import os
import signal
import sys
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database
from app.tables import Job
from tests.processes import exit_code, processes_of, running, wait_for

pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/environ").exists(), reason="finds its processes under /proc"
    ),
]


@pytest.mark.parametrize("stopped_by", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_cancels_the_job_and_leaves_no_process(
    stopped_by: signal.Signals, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "demo.log"
    database = Database(f"sqlite:///{out / 'service' / 'stylefilter.db'}")

    def job() -> Job | None:
        try:
            with database.reading() as session:
                return session.scalars(select(Job)).one_or_none()
        except SQLAlchemyError:
            return None  # the service has not made its tables yet

    command = [sys.executable, "-m", "app.cli.main", "demo", "--out", str(out)]
    with running(command, {"STYLEFILTER_THREADS": "1"}, log) as demo:
        wait_for(lambda: (row := job()) is not None and row.step, "the first step")
        # Of another group: the signal reaches the demo alone, which then asks the service.
        assert demo.pid not in map(os.getpgid, processes_of(out / "service"))
        os.killpg(demo.pid, stopped_by)  # as a terminal does, or a cluster's scheduler
        assert exit_code(demo) == 130, log.read_text()
    row = job()
    database.close()
    assert row is not None
    assert row.state == "cancelled"
    assert processes_of(out / "service") == {}
