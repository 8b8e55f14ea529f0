"""Threads that read, count and write sections beside the thread that decides about them."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

R = TypeVar("R")

_MOST_THREADS = 8  # Python itself runs in one at a time
_BYTES_UNDER_WAY = 64 << 20


class Threads:
    """Does work in threads; at the end of the ``with`` block none of it goes on."""

    def __init__(self) -> None:
        cores = len(os.sched_getaffinity(0))
        self.number = min(_MOST_THREADS, cores)
        self._pool = ThreadPoolExecutor(self.number, thread_name_prefix="intake")
        self._kept: deque[tuple[int, Future[None]]] = deque()
        self._num_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, work: Callable[[], R]) -> Future[R]:
        """Begin work whose result the caller takes."""
        return self._pool.submit(work)

    def keep(self, num_bytes: int, work: Callable[[], None]) -> None:
        """Begin work whose result nobody takes, once what is under way holds at most 64 MiB.

        Work that holds more than that by itself is done before this returns.

        Raises:
            Exception: what earlier work raised; of several, the first in the order of calls.
        """
        while self._kept and (
            self._num_bytes + num_bytes > _BYTES_UNDER_WAY or len(self._kept) > 2 * self.number
        ):
            self._take()
        self._kept.append((num_bytes, self._pool.submit(work)))
        self._num_bytes += num_bytes
        if num_bytes > _BYTES_UNDER_WAY:
            self._take()

    def settle(self) -> None:
        """Wait for the end of all kept work; raise as ``keep`` does."""
        while self._kept:
            self._take()

    def _take(self) -> None:
        num_bytes, future = self._kept.popleft()
        self._num_bytes -= num_bytes
        future.result()
