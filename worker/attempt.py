"""Runs one attempt of a job to its end, and records a failure; free of torch."""

import logging
import traceback
from collections.abc import Callable

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from app.database import Database
from app.jobs.transitions import Failure, Lease, fail
from app.storage import is_disk_full
from models.training.progress import Stop
from worker.exits import Exit, disk_full
from worker.progress import Cancelled, Replaced

logger = logging.getLogger(__name__)


def run_attempt(
    work: Callable[[], None],
    database: Database,
    lease: Lease,
    *,
    describe: Callable[[Exception], tuple[str, str]],
    make_room: Callable[[], None] = lambda: None,
) -> Exit:
    """Do the work of an attempt, which records its success; return the exit code.

    Args:
        work: raises Cancelled or Stop when it has stopped, and Replaced if the job was taken away.
        describe: returns a stable code for an error, and words for the user.
        make_room: is called if the disk is full: else the failure itself could not be written.
    """
    try:
        work()
    except (Cancelled, Stop):
        return Exit.STOPPED  # the supervisor hands the job back
    except Replaced as error:
        logger.warning("job_replaced job=%s error=%s", lease.job_id, error)
    except Exception as error:  # noqa: BLE001 - the one place where a failure becomes a record
        traceback.print_exc()
        trace = "".join(traceback.format_exception(error))
        if is_disk_full(error):
            make_room()
            return _record(database, lease, disk_full(trace), Exit.DISK_FULL)
        if isinstance(error, OperationalError):
            return Exit.DATABASE  # away or restarted: another attempt need not meet that
        return _record(database, lease, Failure(*describe(error), trace), Exit.FAILED)
    return Exit.DONE


def _record(database: Database, lease: Lease, failure: Failure, code: Exit) -> Exit:
    try:
        with database.session() as session:
            fail(session, lease, failure)
            session.commit()
    except SQLAlchemyError:
        logger.exception("end_not_recorded job=%s", lease.job_id)  # the supervisor will
    return code
