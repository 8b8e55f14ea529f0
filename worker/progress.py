"""The callback of training: throttled row updates, metrics, and cancellation."""

import logging
import math
from collections.abc import Mapping
from time import monotonic

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.database import Database
from app.tables import JobStage, JobState, MetricPoint
from models.progress import Progress
from worker.lease import Lease, write

logger = logging.getLogger(__name__)

_WRITE_EVERY_SECONDS = 0.5
_POINTS_PER_SERIES = 1000


class Cancelled(Exception):
    """The user asked the job to stop."""


class Replaced(Exception):
    """The job is no longer this attempt's: it was ended, or given to another worker."""


class Recorder:
    """Writes progress to the job's row; raises Cancelled or Replaced to stop the training."""

    def __init__(self, database: Database, lease: Lease, patience_seconds: float) -> None:
        self._database = database
        self._lease = lease
        self._patience = patience_seconds
        self._last_write = self._last_report = self._stage_started = monotonic()
        self._position = 0
        self._latest: Progress | None = None
        self._points: dict[tuple[str, str, int], float] = {}
        self._summaries: dict[str, dict[str, float]] = {}

    def __call__(self, progress: Progress) -> None:
        new_stage = self._latest is None or self._latest.stage != progress.stage
        if new_stage:
            self._begin(progress)
        self._latest = progress
        self._last_report = monotonic()
        self._keep(progress)
        finished = progress.step == progress.total
        if new_stage or finished or monotonic() - self._last_write > _WRITE_EVERY_SECONDS:
            self._flush(progress, must=finished)

    def summary(self, stage: str) -> Mapping[str, float]:
        """Last losses of a stage, and its validation scores: of the weights kept, and ``last/``."""
        return self._summaries.get(stage, {})

    def _begin(self, progress: Progress) -> None:
        self._position += 1
        # The first step is over already when it is reported: count from the report before it.
        self._stage_started = self._last_report
        self._summaries[progress.stage] = {}

    def _keep(self, progress: Progress) -> None:
        stride = max(1, math.ceil(progress.total / _POINTS_PER_SERIES))
        on_grid = progress.step % stride == 0 or progress.step in (1, progress.total)
        summary = self._summaries[progress.stage]
        for name, value in progress.values.items():
            score = name.startswith(("dice/", "source_dice/"))
            if score or on_grid:
                self._points[(progress.stage, name, progress.step)] = value
            if progress.kept or not score:
                summary[name] = value
            if score and progress.step == progress.total:
                summary[f"last/{name}"] = value

    def _flush(self, progress: Progress, *, must: bool) -> None:
        try:
            with self._database.session() as session:
                state = self._write(session, progress)
                session.commit()
        except SQLAlchemyError as error:
            # The database may be away for a moment; training goes on while the lease can last.
            if must or monotonic() - self._last_write > self._patience:
                raise
            logger.warning("progress_not_written job=%s error=%s", self._lease.job_id, error)
            return
        self._last_write = monotonic()
        self._points.clear()
        if state is None:
            raise Replaced(f"job {self._lease.job_id} is no longer attempt {self._lease.fence}'s")
        if state == JobState.CANCELLING:
            raise Cancelled

    def _write(self, session: Session, progress: Progress) -> JobState | None:
        elapsed = max(monotonic() - self._stage_started, 1e-6)
        state = write(
            session,
            self._lease,
            stage=progress.stage,
            step=progress.step,
            total=progress.total,
            steps_per_second=progress.step / elapsed,
        )
        if state is None:
            return None
        stage = JobStage(
            job_id=self._lease.job_id,
            stage=progress.stage,
            position=self._position,
            step=progress.step,
            total=progress.total,
            seconds=elapsed,
            finished=progress.step == progress.total,
        )
        session.merge(stage)
        session.add_all(
            MetricPoint(job_id=self._lease.job_id, stage=stage, name=name, step=step, value=value)
            for (stage, name, step), value in self._points.items()
        )
        return state
