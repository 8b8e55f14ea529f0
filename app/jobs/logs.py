"""Reads what the trainer of each attempt wrote: the end of its file, or lines as they come."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from app.jobs.event_schemas import LogEvent
from app.storage import Storage

_LOOK_BYTES = 1 << 16
_LINE_CHARACTERS = 2000
_RECENT_LINES = 20


def read_tail(path: Path, num_bytes: int) -> bytes | None:
    """Return the last bytes of a file, from the start of a line if one starts there.

    None says that there is no such file.
    """
    try:
        with path.open("rb") as log:
            start = max(0, log.seek(0, os.SEEK_END) - num_bytes)
            log.seek(start)
            return _from_a_line(log.read(num_bytes)) if start else log.read(num_bytes)
    except OSError:
        return None


def newest_log(storage: Storage, job_id: UUID, attempts: int) -> Path | None:
    """Return the log of the last attempt that has one."""
    paths = (storage.log(job_id, attempt) for attempt in range(attempts, 0, -1))
    return next((path for path in paths if path.exists()), None)


class LogFollower:
    """Gives the new lines of a job's log, from attempt to attempt."""

    def __init__(self, storage: Storage, job_id: UUID) -> None:
        self._storage = storage
        self._job_id = job_id
        self._attempt: int | None = None
        self._offset: int | None = 0
        self._partial = b""
        self._recent: deque[str] = deque(maxlen=_RECENT_LINES)

    def look(self, attempt: int, *, ended: bool) -> Iterator[LogEvent]:
        """Yield the lines that were added; the first look yields the last lines of the attempt.

        A line is given when it is whole, or when nothing more will come.
        """
        if self._attempt is None:
            self._attempt, self._offset = attempt, None
        if attempt != self._attempt:
            yield from self._added(last=True)
            self._attempt, self._offset, self._partial = attempt, 0, b""
            self._recent.clear()
        yield from self._added(last=ended)

    def recent(self) -> LogEvent | None:
        """Return the last lines that were yielded, for a client that comes later."""
        if self._attempt is None or not self._recent:
            return None
        return LogEvent(attempt=self._attempt, lines=list(self._recent))

    def _added(self, *, last: bool) -> Iterator[LogEvent]:
        assert self._attempt is not None
        first_look = self._offset is None
        skipped, data = self._read(self._storage.log(self._job_id, self._attempt))
        if skipped:
            self._partial, data = b"", _from_a_line(data)
        data = self._partial + data
        whole = len(data) if last or len(data) > _LOOK_BYTES else data.rfind(b"\n") + 1
        data, self._partial = data[:whole], data[whole:]
        lines = [line[:_LINE_CHARACTERS] for line in data.decode(errors="replace").splitlines()]
        self._recent.extend(lines)
        if first_look:
            lines, skipped = list(self._recent), 0
        if lines:
            yield LogEvent(attempt=self._attempt, lines=lines, skipped_bytes=skipped)

    def _read(self, path: Path) -> tuple[int, bytes]:
        """Return how many bytes were passed over, and the bytes from there to the file's end."""
        try:
            with path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                known = self._offset or 0
                start = max(known, size - _LOOK_BYTES)
                log.seek(start)
                data = log.read(_LOOK_BYTES)
        except OSError:  # the file does not exist yet, or exists no longer
            self._offset = self._offset or 0
            return 0, b""
        self._offset = start + len(data)
        return start - known, data


def _from_a_line(data: bytes) -> bytes:
    """Drop the end of a line at the start, unless there is nothing else."""
    return data[data.find(b"\n") + 1 :] or data
