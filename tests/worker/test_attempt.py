"""Each way in which an attempt can end: its exit code, and the job's row."""

import errno
from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from app.database import Database
from app.jobs.orders import cancel
from app.jobs.transitions import Lease, claim
from app.tables import Job
from models.training.progress import Stop
from tests.app.records import add_waiting
from worker.attempt import run_attempt
from worker.exits import Exit
from worker.progress import Cancelled, Replaced


def raising(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def row_after(database: Database, work: Callable[[], None], told: list[str]) -> tuple[Exit, Job]:
    """Run an attempt of a new job, which notes that it made room; the code and the row."""
    job_id = add_waiting(database)
    lease = claim(database, "here", 60)
    assert lease == Lease(job_id, 1)
    code = run_attempt(
        work,
        database,
        lease,
        describe=lambda error: ("unknown", str(error)),
        make_room=lambda: told.append("room"),
    )
    with database.reading() as session:
        return code, session.get_one(Job, job_id)


@pytest.mark.parametrize(
    ("work", "code"),
    [
        (lambda: None, Exit.DONE),
        (raising(Cancelled()), Exit.STOPPED),
        (raising(Stop()), Exit.STOPPED),
        (raising(Replaced()), Exit.DONE),
        (raising(OperationalError("SELECT 1", None, Exception())), Exit.DATABASE),
    ],
)
def test_these_ends_leave_the_row_to_others(
    database: Database, work: Callable[[], None], code: Exit
) -> None:
    told: list[str] = []
    ended, job = row_after(database, work, told)
    assert (ended, job.state, job.error_code, told) == (code, "running", None, [])


def test_an_error_fails_the_job_with_its_place_in_the_code(database: Database) -> None:
    code, job = row_after(database, raising(ValueError("so wide")), told := [])
    assert (code, job.state, told) == (Exit.FAILED, "failed", [])
    assert (job.error_code, job.error_message) == ("unknown", "so wide")
    assert "in work" in str(job.error_traceback)


def test_room_is_made_before_a_full_disk_is_recorded(database: Database) -> None:
    code, job = row_after(database, raising(OSError(errno.ENOSPC, "full")), told := [])
    assert (code, job.state, job.error_code) == (Exit.DISK_FULL, "failed", "disk_full")
    assert told == ["room"]


def test_a_failure_of_a_job_that_is_cancelled_cancels_it(database: Database) -> None:
    def work() -> None:
        with database.session() as session:
            (job_id,) = session.scalars(select(Job.id))
            cancel(session, job_id)
            session.commit()
        raise ValueError("late")

    code, job = row_after(database, work, [])
    assert (code, job.state, job.error_code) == (Exit.FAILED, "cancelled", None)
