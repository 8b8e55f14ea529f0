"""run_job(id): claim the next job, supervise its trainer process, and record how it ended."""

import logging
import os
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from app.database import Database
from app.jobs.logs import read_tail
from app.jobs.transitions import Failure, Lease, claim, fail, hand_back, lose, release, renew
from app.settings import Settings
from app.storage import Storage, is_disk_full
from app.tables import ENDED, Job, JobKind, JobState, Lane
from worker.exits import Exit, disk_full, failure_of
from worker.gpu import held, visible
from worker.start import announce

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_SETTLE_PAUSE_SECONDS = 1.0
_LOG_TAIL_BYTES = 16_000


@dataclass(frozen=True)
class _End:
    """The end of an attempt, to be recorded if the trainer has not recorded it itself."""

    failure: Failure
    saved: bool = False
    """The trainer was told to stop, saved its state and ended."""
    final: bool = False
    """Another attempt would end in the same way."""

    @classmethod
    def of_trainer(cls, code: int, log: str) -> Self:
        failure = failure_of(code, log)
        return cls(failure, saved=code == Exit.STOPPED, final=code == Exit.DISK_FULL)

    @classmethod
    def of_error(cls, error: Exception) -> Self:
        trace = "".join(traceback.format_exception(error))
        if is_disk_full(error):
            return cls(disk_full(trace), final=True)
        words = f"The worker could not run the trainer: {type(error).__name__}: {error}"
        return cls(Failure("worker_error", words, trace))


@dataclass(frozen=True)
class Claimed:
    """An attempt that this worker has taken, and the locks of the GPUs that it may use."""

    lease: Lease
    kind: JobKind
    locks: tuple[int, ...]


class JobRunner:
    """Runs announced jobs: one that trains at a time, and beside it one that registers a dataset.

    Each runs in a process of its own. ``run_job`` may be called by several threads.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database)
        self._storage = Storage(settings.data_folder)
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._stopping = threading.Event()
        self._choosing = threading.Lock()
        self._training = self._registering = False

    def run_job(self, job_id: str) -> None:
        """Run waiting jobs until there are none.

        The message says that ``job_id`` waits, but the table of jobs decides which one is next. A
        repeated or late message finds nothing to do.
        """
        logger.info("announced job=%s", job_id)
        while not self._stopping.is_set() and self._run_next():
            pass

    def _run_next(self) -> bool:
        """Run the job that is next in this worker's lanes; False if there is none."""
        with ExitStack() as held_gpus:
            with self._choosing:
                claimed = self._claim(held_gpus)
                if claimed is None:
                    return False
                registers = claimed.kind == JobKind.REGISTER
                self._occupy(registers, True)
            try:
                self._run(claimed)
            finally:
                self._occupy(registers, False)
        return True

    def _occupy(self, registers: bool, occupied: bool) -> None:
        if registers:
            self._registering = occupied
        else:
            self._training = occupied

    def _claim(self, held_gpus: ExitStack) -> Claimed | None:
        """Take the next job in the lanes that this worker has room for; None if no job waits."""
        lanes = {
            lane
            for lane in self._settings.lanes
            if not (self._registering if lane == Lane.DATA else self._training)
        }
        gpus = visible(self._settings.processes) if any(lane.needs_gpu for lane in lanes) else []
        locks = held_gpus.enter_context(held(gpus))
        if locks is None:
            logger.info("gpu_taken gpus=%s", ",".join(gpus))
            lanes = {lane for lane in lanes if not lane.needs_gpu}
        lease = claim(self._database, self._owner, self._settings.lease_seconds, lanes)
        if lease is None:
            return None
        with self._database.reading() as session:
            job = session.get_one(Job, lease.job_id)
        if not Lane(job.lane).needs_gpu:
            held_gpus.close()
            locks = None
        return Claimed(lease, JobKind(job.kind), locks or ())

    def _run(self, claimed: Claimed) -> None:
        lease = claimed.lease
        logger.info("job_claimed job=%s attempt=%s", lease.job_id, lease.attempt)
        folder = self._storage.attempt(lease.job_id, lease.attempt)
        try:
            end = self._attempt(claimed, folder)
        except Exception as error:  # whatever it was: the job must not wait for its lease to end
            logger.exception("attempt_broken job=%s", lease.job_id)
            end = _End.of_error(error)
        self._settle(lease, end, folder)

    def close(self) -> None:
        self._database.close()

    def stop(self) -> None:
        """Hand the running job back and take no more; the worker is about to end."""
        self._stopping.set()

    def _attempt(self, claimed: Claimed, folder: Path) -> _End:
        lease = claimed.lease
        path = self._storage.log(lease.job_id, lease.attempt)
        for needed in (folder, path.parent):
            needed.mkdir(parents=True, exist_ok=True)
        if claimed.kind != JobKind.REGISTER:
            self._announce(lease)
        with path.open("wb") as log:
            code = self.supervise(claimed, log.fileno())
        log_end = read_tail(path, _LOG_TAIL_BYTES) or b""
        return _End.of_trainer(code, log_end.decode(errors="replace"))

    def _announce(self, lease: Lease) -> None:
        try:
            announce(self._database, lease, self._settings.processes)
        except (SQLAlchemyError, LookupError, ValueError) as error:
            # The trainer will meet the same error, and record it.
            logger.warning("stage_not_announced job=%s error=%s", lease.job_id, error)

    def supervise(self, claimed: Claimed, log: int) -> int:
        """Keep the lease while the job's process runs, and return the process's exit code."""
        lease = claimed.lease
        command = [sys.executable, "-m", *_program(claimed.kind, self._settings.processes)]
        command += [str(lease.job_id), str(lease.attempt)]
        # A session of its own: Ctrl-C, or systemd's SIGTERM, to the worker's group would else end
        # the trainer before the worker knows that it is being stopped.
        trainer = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=claimed.locks,
        )
        renewed = monotonic()
        cancelled_at: float | None = None
        stopped_at: float | None = None
        pausing = False
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
                    pausing = state == JobState.PAUSING
                if (pausing or self._stopping.is_set()) and stopped_at is None:
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
        """Record an end that the trainer did not record itself, and remove a half result."""
        # It is never part of a result, and may fill the disk that the database needs.
        self._storage.remove(folder / "work")
        deadline = monotonic() + self._settings.lease_seconds
        while True:
            try:
                state = self._record(lease, end)
                break
            except SQLAlchemyError as error:
                logger.warning("end_not_recorded job=%s error=%s", lease.job_id, error)
                if monotonic() > deadline:
                    return  # the lease has run out: the reconciler sees to the job
                self._stopping.wait(_SETTLE_PAUSE_SECONDS)
        logger.info("attempt_ended job=%s state=%s", lease.job_id, state)
        if state not in ENDED:
            self._storage.remove(folder)
            return
        succeeded, saved = state == JobState.SUCCEEDED, state == JobState.FAILED
        self._storage.tidy(lease.job_id, lease.attempt, succeeded=succeeded, saved=saved)
        try:
            with self._database.session() as session:
                release(session, lease)
                session.commit()
        except SQLAlchemyError as error:
            # The reconciler will do it when the lease has run out.
            logger.warning("job_not_released job=%s error=%s", lease.job_id, error)

    def _record(self, lease: Lease, end: _End) -> JobState | None:
        """Let go of the job, and return its state; None if another attempt has it."""
        with self._database.session() as session:
            if end.saved or self._stopping.is_set():
                hand_back(session, lease)
            elif end.final:
                fail(session, lease, end.failure)
            else:
                lose(session, lease, end.failure)
            session.commit()
            job = session.get_one(Job, lease.job_id)
            return JobState(job.state) if job.attempt == lease.attempt else None


def _program(kind: JobKind, processes: int) -> list[str]:
    """Return the module that runs a job of this kind; of torchrun if several processes train it."""
    if kind == JobKind.REGISTER:
        return ["worker.registrar"]
    if processes == 1:
        return ["worker.trainer"]
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    return [*launcher, "worker.trainer"]
