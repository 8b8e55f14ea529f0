"""Slow functions, few at a time, with a bounded queue."""

import threading

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

import app.http.heavy_work
from app.errors import Busy
from app.http.heavy_work import HeavyWork, Places, Turns
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


def test_places_are_bounded() -> None:
    places = Places(2)
    with places.one():
        with places.one(), pytest.raises(Busy), places.one():
            pass
        with places.one():
            pass


def test_turns_are_waited_for() -> None:
    async def main() -> None:
        turns, order = Turns(2), []

        async def take(name: str, ends: anyio.Event) -> None:
            async with turns.one():
                order.append(name)
                await ends.wait()

        first, others = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as tasks:
            for name, ends in (("a", first), ("b", others), ("c", others), ("d", others)):
                tasks.start_soon(take, name, ends)
            await anyio.wait_all_tasks_blocked()
            assert order == ["a", "b"]
            first.set()
            await anyio.wait_all_tasks_blocked()
            assert order == ["a", "b", "c"]
            others.set()
        assert order == ["a", "b", "c", "d"]

    anyio.run(main)


def test_a_turn_that_does_not_come_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.http.heavy_work, "_PATIENCE_SECONDS", 0.01)

    async def main() -> None:
        turns = Turns(1)
        async with turns.one():
            with pytest.raises(Busy):
                async with turns.one():
                    pass
        async with turns.one():
            pass

    anyio.run(main)
