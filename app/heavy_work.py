"""Runs slow functions beside the event loop, few at a time, with a bounded queue before them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

from app.errors import Busy

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_RETRY_SECONDS = 5


class HeavyWork:
    """Runs functions in threads of its own, so that cheap requests always find a thread.

    ``threads`` functions run at once, and ``waiting`` more may wait. It belongs to one event loop.
    """

    def __init__(self, threads: int, waiting: int) -> None:
        self._limiter = CapacityLimiter(threads)
        self._most = threads + waiting
        self._taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the queue; Busy if there is none."""
        if self._taken >= self._most:
            raise Busy(
                f"the service works on {self._most} such requests already, and no more may wait: "
                f"send the request again in some seconds",
                retry_after_seconds=_RETRY_SECONDS,
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def run(
        self,
        function: Callable[Parameters, Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Call a function when its turn comes, and return its result; Busy if the queue is full."""
        with self.place():
            return await to_thread.run_sync(
                lambda: function(*args, **kwargs), limiter=self._limiter
            )
