"""Bounds what requests do at once, so that cheap ones are answered while others take long."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, Semaphore, fail_after, to_thread

from app.errors import Busy

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_RETRY_SECONDS = 5
_PATIENCE_SECONDS = 30.0


class Places:
    """So many requests may be inside at once; all others are refused."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place; Busy if there is none."""
        if self._taken >= self._number:
            raise Busy(
                f"the service holds {self._taken} such requests already, and no more may wait: "
                "send the request again in some seconds",
                retry_after_seconds=_RETRY_SECONDS,
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Turns:
    """So many requests may go on at once. Others wait in the event loop, where they hold no thread.

    It belongs to one event loop.
    """

    def __init__(self, number: int) -> None:
        self._semaphore = Semaphore(number)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it; Busy if none comes for 30 s."""
        try:
            with fail_after(_PATIENCE_SECONDS):
                await self._semaphore.acquire()
        except TimeoutError as error:
            raise Busy(
                "the service answers too many requests now: send the request again in some seconds",
                retry_after_seconds=_RETRY_SECONDS,
            ) from error
        try:
            yield
        finally:
            self._semaphore.release()


class HeavyWork:
    """Runs slow functions in threads of its own, so that cheap requests always find a thread.

    ``threads`` functions run at once, and ``waiting`` more may wait. It belongs to one event loop.
    """

    def __init__(self, threads: int, waiting: int) -> None:
        self._limiter = CapacityLimiter(threads)
        self._places = Places(threads + waiting)

    async def run(
        self,
        function: Callable[Parameters, Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Call a function when its turn comes, and return its result; Busy if the queue is full."""
        with self._places.one():
            return await to_thread.run_sync(
                lambda: function(*args, **kwargs), limiter=self._limiter
            )
