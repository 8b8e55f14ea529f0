"""How a trainer's process ended: exit codes, what they stand for, and words; free of torch."""

import signal
from enum import IntEnum

from app.jobs.transitions import Failure


class Exit(IntEnum):
    """Exit codes of a trainer that could say how it ended; any other means that it died."""

    DONE = 0
    FAILED = 1
    DISK_FULL = 28
    DATABASE = 69
    ORPHANED = 75
    STOPPED = 76
    """It was told to stop, saved its state and ended."""


def disk_full(trace: str) -> Failure:
    """Return the failure of an attempt for which the disk was too full."""
    return Failure("disk_full", "The disk is full; nothing of this attempt was kept.", trace)


def failure_of(code: int, log: str) -> Failure:
    """Return what an exit code stands for, should the trainer not have recorded its end itself.

    A negative code is the signal that ended the process. ``log`` is the end of the trainer's log.
    """
    if code == Exit.DISK_FULL:
        return disk_full(log)
    if code == Exit.DATABASE:
        words = "The database could not be reached for too long, or was restarted."
        return Failure("database_lost", words, log)
    return Failure("trainer_died", _last_words(code), log)


def _last_words(code: int) -> str:
    if code == -signal.SIGKILL:
        return "The trainer was killed (SIGKILL): most often the machine ran out of memory."
    if code < 0:
        return f"The trainer was ended by {signal.Signals(-code).name}."
    return f"The trainer ended with exit code {code} and said nothing; its log is kept here."
