"""run_job(id): claim, supervise the trainer process, record how it ended."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Self
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database
from app.settings import Settings
from app.storage import Storage, is_disk_full
from app.tables import UNFINISHED, Job, JobState
from worker.lease import Lease, claim, finish, give_back, renew

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_SETTLE_PAUSE_SECONDS = 1.0
# Of worker.trainer, which this process must not import: it loads torch.
_EXIT_DISK_FULL = 28
_LOG_TAIL_BYTES = 16_000
_DISK_FULL = "The disk is full; nothing of this attempt was kept."


@dataclass(frozen=True)
class _End:
    """How an attempt ended, should the trainer not have said so itself."""

    code: str
    message: str
    trace: str

    @classmethod
    def of_trainer(cls, code: int, log: str) -> Self:
        name = "disk_full" if code == _EXIT_DISK_FULL else "trainer_died"
        return cls(name, _words(code), log)

    @classmethod
    def of_error(cls, error: Exception) -> Self:
        trace = "".join(traceback.format_exception(error))
        if is_disk_full(error):
            return cls("disk_full", _DISK_FULL, trace)
        words = f"The worker could not run the trainer: {type(error).__name__}: {error}"
        return cls("worker_error", words, trace)


class JobRunner:
    """Runs announced jobs, one trainer process at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database)
        self._storage = Storage(settings.data_folder)
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._stopping = threading.Event()

    def run_job(self, job_id: str) -> None:
        """Run the job if it is queued; a repeated or late message does nothing."""
        if self._stopping.is_set():
            return
        lease = claim(self._database, UUID(job_id), self._owner, self._settings.lease_seconds)
        if lease is None:
            logger.info("job_not_queued job=%s", job_id)
            return
        logger.info("job_claimed job=%s fence=%s", job_id, lease.fence)
        folder = self._storage.attempt(lease.job_id, lease.fence)
        try:
            end = self._attempt(lease, folder)
        except Exception as error:  # whatever it was: the job must not wait for its lease to end
            logger.exception("attempt_broken job=%s", job_id)
            end = _End.of_error(error)
        self._settle(lease, end, folder)

    def close(self) -> None:
        self._database.close()

    def stop(self) -> None:
        """Give the running job back and take no more; the worker is about to end."""
        self._stopping.set()

    def _attempt(self, lease: Lease, folder: Path) -> _End:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "trainer.log"
        with path.open("wb") as log:
            code = self._supervise(lease, log.fileno())
        return _End.of_trainer(code, _tail(path))

    def _supervise(self, lease: Lease, log: int) -> int:
        """Keep the lease while the trainer runs; its exit code."""
        command = [sys.executable, "-m", *_launcher(self._settings.processes), "worker.trainer"]
        command += [str(lease.job_id), str(lease.fence)]
        # A session of its own: Ctrl-C, or systemd's SIGTERM, to the worker's group would else end
        # the trainer before the worker knows that it is being stopped.
        trainer = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
        renewed = monotonic()
        cancelled_at: float | None = None
        stopped_at: float | None = None
        try:
            while True:
                try:
                    return trainer.wait(_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    now = monotonic()
                if now - renewed > self._settings.heartbeat_seconds:
                    state = self._renew(lease)
                    if state is not None:
                        renewed = now
                    if state == JobState.CANCELLING:
                        cancelled_at = cancelled_at or now
                if self._stopping.is_set() and stopped_at is None:
                    stopped_at = now
                    trainer.terminate()  # it saves its state and ends
                overdue = (
                    now - (cancelled_at or now) > self._settings.cancel_grace_seconds
                    or now - (stopped_at or now) > self._settings.stop_grace_seconds
                )
                lost = now - renewed > self._settings.lease_seconds
                if overdue or lost:
                    trainer.kill()
                    return trainer.wait()
        finally:
            trainer.kill()
            trainer.wait()
            if trainer.stdin is not None:
                trainer.stdin.close()  # ends the processes that torchrun started, too

    def _renew(self, lease: Lease) -> JobState | None:
        try:
            return renew(self._database, lease, self._settings.lease_seconds)
        except SQLAlchemyError as error:
            logger.warning("lease_not_renewed job=%s error=%s", lease.job_id, error)
            return None

    def _settle(self, lease: Lease, end: _End, folder: Path) -> None:
        """Record an end that the trainer did not record itself, and leave no half result."""
        # Never part of a result, and maybe what fills the disk that the database needs.
        self._storage.remove(folder / "work")
        deadline = monotonic() + self._settings.lease_seconds
        while True:
            try:
                kept, given_back = self._record(lease, end)
                break
            except SQLAlchemyError as error:
                logger.warning("end_not_recorded job=%s error=%s", lease.job_id, error)
                if monotonic() > deadline:
                    return  # the lease has run out: the reconciler ends the job
                self._stopping.wait(_SETTLE_PAUSE_SECONDS)
        if not kept:
            self._storage.remove(folder)
        if not given_back:
            self._storage.remove(self._storage.checkpoints(lease.job_id))

    def _record(self, lease: Lease, end: _End) -> tuple[bool, bool]:
        """End or give back the job if it is still ours.

        Whether this attempt's results are to be kept, and whether the job will be resumed.
        """
        with self._database.session() as session:
            if self._stopping.is_set() and give_back(session, lease):
                session.commit()
                logger.info("job_given_back job=%s", lease.job_id)
                return False, True
            # Locked, or a cancellation between reading and writing would be lost.
            query = select(Job).where(Job.id == lease.job_id).with_for_update()
            job = session.scalars(query).one()
            if job.state == JobState.CANCELLING:
                finish(session, lease, JobState.CANCELLED)
            else:
                finish(
                    session,
                    lease,
                    JobState.FAILED,
                    error_code=end.code,
                    error_message=end.message,
                    error_traceback=end.trace,
                )
            session.refresh(job)
            session.commit()
            logger.info("job_ended job=%s state=%s", lease.job_id, job.state)
            ours = job.fence == lease.fence
            return ours and job.state == JobState.SUCCEEDED, not ours or job.state in UNFINISHED


def _launcher(processes: int) -> list[str]:
    """What starts the trainer's module: python itself, or torchrun for several processes."""
    if processes == 1:
        return []
    return ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]


def _words(code: int) -> str:
    if code == _EXIT_DISK_FULL:
        return _DISK_FULL
    if code == -signal.SIGKILL:
        return "The trainer was killed (SIGKILL): most often the machine ran out of memory."
    if code < 0:
        return f"The trainer was ended by {signal.Signals(-code).name}."
    return f"The trainer ended with exit code {code} and said nothing; its log is kept here."


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")
    except OSError:
        return ""
