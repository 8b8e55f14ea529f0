"""Threads of an intake: bounded memory, errors in order, and nothing that goes on afterwards."""

from threading import Event, Lock

import pytest

from models.data.intake.threads import Threads

MB = 1 << 20


def test_work_under_way_holds_a_bounded_number_of_bytes() -> None:
    lock, held, most, done = Lock(), 0, 0, []

    def work(number: int, num_bytes: int) -> None:
        nonlocal held
        with lock:
            held -= num_bytes
            done.append(number)

    with Threads() as threads:
        for number in range(40):
            num_bytes = (1 + number % 3) * 10 * MB
            threads.keep(num_bytes, lambda n=number, b=num_bytes: work(n, b))
            with lock:
                held += num_bytes
                most = max(most, held)
        threads.settle()
    assert sorted(done) == list(range(40))
    assert most <= 64 * MB


def test_work_that_holds_more_is_done_at_once() -> None:
    done: list[str] = []
    with Threads() as threads:
        threads.keep(1, lambda: done.append("small"))
        threads.keep(65 * MB, lambda: done.append("large"))
        assert done == ["small", "large"]


def test_first_error_by_the_order_of_calls_is_raised() -> None:
    def fail(word: str) -> None:
        raise ValueError(word)

    with Threads() as threads:
        for word in ("first", "second"):
            threads.keep(1, lambda word=word: fail(word))
        with pytest.raises(ValueError, match="first"):
            threads.settle()


def test_nothing_goes_on_after_the_end() -> None:
    go_on, ended = Event(), []

    def wait() -> None:
        assert go_on.wait(10)
        ended.append(True)

    with pytest.raises(KeyError), Threads() as threads:  # noqa: PT012 - what is left when it fails
        for _ in range(2 * threads.number):
            threads.begin(wait)
        go_on.set()
        raise KeyError
    count = len(ended)
    assert count >= 1
    with pytest.raises(RuntimeError):
        threads.begin(wait)
    assert len(ended) == count
