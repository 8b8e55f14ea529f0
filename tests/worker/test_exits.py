"""What the exit code of a trainer is told as."""

import signal

import pytest

from worker.exits import Exit, failure_of


@pytest.mark.parametrize(
    ("code", "told", "words"),
    [
        (Exit.DISK_FULL, "disk_full", "disk"),
        (Exit.DATABASE, "database_lost", "database"),
        (Exit.FAILED, "trainer_died", "exit code 1 "),
        (3, "trainer_died", "exit code 3 "),
        (-signal.SIGKILL, "trainer_died", "SIGKILL"),
        (-signal.SIGSEGV, "trainer_died", "SIGSEGV"),
    ],
)
def test_an_exit_code_becomes_a_failure_with_the_end_of_the_log(
    code: int, told: str, words: str
) -> None:
    failure = failure_of(code, "the log")
    assert (failure.code, failure.trace) == (told, "the log")
    assert words in failure.message
