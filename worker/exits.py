"""The exit codes of a trainer, and the failure that each stands for; free of torch."""

import signal
from enum import IntEnum

from app.jobs.transitions import Failure


class Exit(IntEnum):
    """The codes by which a trainer tells how it ended; any other code means that it died."""

    # 28 is ENOSPC, 69 and 75 are EX_UNAVAILABLE and EX_TEMPFAIL of sysexits.h.
    DONE = 0
    FAILED = 1
    DISK_FULL = 28
    DATABASE = 69
    ORPHANED = 75
    STOPPED = 76
    """It was told to stop, saved its state and ended."""


def disk_full(trace: str) -> Failure:
    """Return the failure of an attempt that filled the disk."""
    return Failure("disk_full", "The disk is full; nothing of this attempt was kept.", trace)


def failure_of(code: int, log: str) -> Failure:
    """Return the failure that a code stands for, if the trainer has not recorded its end itself.

    A negative code is the signal that ended the process. ``log`` is the end of the trainer's log.
    """
    if code == Exit.DISK_FULL:
        return disk_full(log)
    if code == Exit.DATABASE:
        words = (
            "The database could not be reached for too long, or was restarted. The job goes on by "
            "itself, until it has lost too many attempts."
        )
        return Failure("database_lost", words, log)
    return Failure("trainer_died", _last_words(code), log)


def _last_words(code: int) -> str:
    if code == -signal.SIGKILL:
        return "The trainer was killed (SIGKILL): most often the machine ran out of memory."
    if code < 0:
        return f"The trainer was ended by {signal.Signals(-code).name}."
    return (
        f"The trainer ended with exit code {code} and said nothing. The end of its log is in "
        "traceback, and all of it at GET /jobs/ID/log."
    )
