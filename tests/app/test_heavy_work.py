"""Slow functions, few at a time, with a bounded queue."""

import threading

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from app.errors import Busy
from app.heavy_work import HeavyWork
from tests.processes import DEADLINE_SECONDS


def test_results_and_errors_come_back() -> None:
    async def main() -> None:
        work = HeavyWork(threads=1, waiting=0)
        assert await work.run(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await work.run(divmod, 1, 0)
        assert await work.run(int, "ff", base=16) == 255  # each has left its place

    anyio.run(main)


def test_a_full_queue_is_busy_and_gets_free_again() -> None:
    with start_blocking_portal() as portal:
        work = portal.call(HeavyWork, 2, 3)
        may_end = threading.Event()
        running = threading.Semaphore(0)
        at_once: list[int] = []
        lock = threading.Lock()
        active = 0

        def slow() -> None:
            nonlocal active
            with lock:
                active += 1
                at_once.append(active)
            running.release()
            assert may_end.wait(DEADLINE_SECONDS)
            with lock:
                active -= 1

        futures = [portal.start_task_soon(work.run, slow) for _ in range(5)]
        for _ in range(2):
            assert running.acquire(timeout=DEADLINE_SECONDS)
        with pytest.raises(Busy) as refused:
            portal.call(work.run, slow)
        assert int(refused.value.headers["Retry-After"]) > 0
        may_end.set()
        for future in futures:
            future.result(DEADLINE_SECONDS)
        portal.call(work.run, slow)
        assert max(at_once) == 2


def test_a_place_is_held_without_a_thread() -> None:
    async def main() -> None:
        work = HeavyWork(threads=1, waiting=0)
        with work.place(), pytest.raises(Busy):
            await work.run(int)
        assert await work.run(int) == 0

    anyio.run(main)
