"""Sends the events of jobs to the clients that watch them.

Each watched job has one reader, however many clients watch it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database
from app.errors import Busy, NotFound
from app.jobs.event_reader import Found, Reader
from app.storage import Storage

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.7
_PING_SECONDS = 15.0
_READERS = 2
_LISTENER_BYTES = 1 << 20
_GATHER_SECONDS = 0.05
# This tells browsers to come back after one second; by default they wait longer.
_GREETING = format_sse_event(retry=1000)


class Listener:
    """One open stream, with the events that wait to be sent on it, up to a limit of bytes."""

    def __init__(self, after: int | None) -> None:
        self.last = after or 0
        self.fresh = after is None
        self.began: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """The first look at the job sets this: True if the job exists."""
        self.closed = False
        self._waiting: list[bytes] = []
        self._num_bytes = 0
        self._news = asyncio.Event()

    @property
    def over(self) -> bool:
        """Tell whether the stream has ended and everything on it was sent."""
        return self.closed and not self._waiting

    def offer(self, event: bytes, event_id: int | None = None) -> None:
        """Queue an event, unless it was sent before. Close the stream of a client that is too slow.

        That client has to come again, with the id of the last event that it received.
        """
        if self.closed or (event_id is not None and event_id <= self.last):
            return
        if self._waiting and self._num_bytes + len(event) > _LISTENER_BYTES:
            self.close()
            return
        if event_id is not None:
            self.last = event_id
        self._waiting.append(event)
        self._num_bytes += len(event)
        self._news.set()

    def take(self, found: Found, *, is_first: bool) -> None:
        """Queue the results of one look at the job, without events that were sent before."""
        news = [(event_id, event) for event_id, event in found.events if event_id > self.last]
        if found.ended and not news and not self.fresh:
            return  # the client knows everything; an empty stream makes browsers stop asking
        final = news.pop() if found.ended and news else None
        for event_id, event in news:
            self.offer(event, event_id)
        if is_first and self.fresh:
            log = [found.recent_log] if found.recent_log else []
        else:
            log = list(found.log)
        for event in log:
            self.offer(event)
        if is_first or found.progress_changed:
            self.offer(found.progress)
        if final is not None:
            self.offer(final[1], final[0])

    def close(self) -> None:
        """End the stream after the events that wait."""
        self.closed = True
        self._news.set()

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield server-sent events until the end, and a comment every 15 s while there are none."""
        yield _GREETING
        while not self.over:
            if self._waiting:
                chunk = b"".join(self._waiting)
                self._waiting.clear()
                self._num_bytes = 0
                yield chunk
                continue
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), _PING_SECONDS)
            except TimeoutError:
                yield KEEPALIVE_COMMENT


class Broadcaster:
    """Reads each watched job once for all its listeners. It lives as long as the event loop."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage
        self._channels: dict[UUID, _Channel] = {}
        # The limit is low, so that many watched jobs leave connections and threads to requests.
        self._limiter = CapacityLimiter(_READERS)
        self._closed = False

    @asynccontextmanager
    async def listen(self, job_id: UUID, after: int | None) -> AsyncIterator[Listener]:
        """Yield a listener to the events of a job after the one with the id ``after``.

        With None it hears all stored events, and the present progress and log.

        Raises:
            NotFound: there is no such job.
            Busy: the service is stopping.
        """
        if self._closed:
            raise _stopping()
        listener = Listener(after)
        channel = self._channels.get(job_id)
        if channel is None:
            channel = _Channel(Reader(self._database, self._storage, job_id), self._limiter)
            self._channels[job_id] = channel
            channel.task = asyncio.create_task(self._run(job_id, channel))
        channel.join(listener)
        try:
            if not await listener.began:
                raise NotFound(f"there is no job {job_id}: GET /jobs lists all jobs")
            yield listener
        finally:
            channel.leave(listener)

    async def _run(self, job_id: UUID, channel: "_Channel") -> None:
        try:
            await channel.run()
        finally:
            del self._channels[job_id]
            channel.end()

    def close(self) -> None:
        """End all streams, and refuse new ones."""
        self._closed = True
        for channel in self._channels.values():
            channel.end()
            if channel.task is not None:
                channel.task.cancel()


class _Channel:
    """The listeners of one job."""

    def __init__(self, reader: Reader, limiter: CapacityLimiter) -> None:
        self.task: asyncio.Task[None] | None = None
        self._reader = reader
        self._limiter = limiter
        self._listeners: set[Listener] = set()
        self._wake = asyncio.Event()
        self._lost = False

    def join(self, listener: Listener) -> None:
        self._listeners.add(listener)
        self._wake.set()

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners:
            self._wake.set()

    def end(self) -> None:
        """Close all listeners, and refuse those that have not heard anything yet."""
        for listener in self._listeners:
            listener.close()
            if not listener.began.done():
                listener.began.set_exception(_stopping())
        self._listeners.clear()

    async def run(self) -> None:
        """Look at the job and tell its listeners, again and again, as long as there is one."""
        while self._listeners:
            self._wake.clear()
            # A listener that joins during this look is served by the next, which begins at once.
            served = list(self._listeners)
            after = min(listener.last for listener in served)
            try:
                found = await to_thread.run_sync(
                    self._reader.look, after, abandon_on_cancel=True, limiter=self._limiter
                )
            except SQLAlchemyError as error:
                self._fail(served, error)
                more = False
            else:
                self._tell(served, found)
                more = found is not None and found.more
            self._listeners = {one for one in self._listeners if not one.closed}
            if self._listeners and not more:
                await self._pause()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), _LOOK_SECONDS)
            await asyncio.sleep(_GATHER_SECONDS)  # one look then serves all who came together

    def _fail(self, served: Sequence[Listener], error: SQLAlchemyError) -> None:
        """Refuse the listeners that have just come; the others wait until the database is back."""
        if not self._lost:  # logged once, not at each look
            logger.warning("events_not_read job=%s error=%s", self._reader.job_id, error)
        self._lost = True
        for listener in served:
            if not listener.began.done():
                listener.began.set_exception(error)
                self._listeners.discard(listener)

    def _tell(self, served: Sequence[Listener], found: Found | None) -> None:
        if self._lost:
            logger.warning("events_read_again job=%s", self._reader.job_id)
        self._lost = False
        for listener in served:
            is_first = not listener.began.done()
            if found is not None:
                listener.take(found, is_first=is_first)
            if is_first:
                listener.began.set_result(found is not None)
            if found is None or found.ended:
                listener.close()


def _stopping() -> Busy:
    return Busy("the service is stopping: send the request again later", retry_after_seconds=5)
