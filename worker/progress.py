"""The callback of training: throttled row updates, metrics, and cancellation."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.database import Database
from app.inspection.figure import comparison
from app.jobs.transitions import Lease, record, write
from app.tables import JobStage, JobState, MetricPoint
from models.data.files import written_aside
from models.training.progress import Picture, Progress, Stage, Stop, is_score

logger = logging.getLogger(__name__)

_ORDER: tuple[Stage, ...] = (
    "pretrain", "style", "stylise", "adapt", "evaluate", "register", "verdict",
    "probe",
)  # fmt: skip
"""The order in which stages are shown."""

_WRITE_EVERY_SECONDS = 0.5
_POINTS_PER_SERIES = 1000


class Cancelled(Exception):
    """The user asked the job to stop."""


class Replaced(Exception):
    """The job is no longer this attempt's: it was ended, or given to another worker."""


class Recorder:
    """The callback that writes progress to the job's row, and raises to end the training.

    Cancelled and Replaced end the training for good. Stop ends it until it is resumed: once
    ``stopping`` is set, or the job is to pause.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        patience_seconds: float,
        stopping: Event | None = None,
        album: "Album | None" = None,
    ) -> None:
        self._album = album
        self._database = database
        self._lease = lease
        self._patience = patience_seconds
        self._stopping = stopping or Event()
        self._last_write = self._last_report = monotonic()
        self._latest: Progress | None = None
        self._stage: _Stage | None = None
        self._points: dict[tuple[str, str, int], float] = {}
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._summaries: dict[str, dict[str, float]] = {}

    def __call__(self, progress: Progress) -> None:
        new_stage = self._begins(progress)
        if new_stage:
            # The first step is over already when it is reported: count from the report before it.
            self._stage = _Stage(progress.step, self._last_report)
            self._summaries[progress.stage] = {}
        self._latest = progress
        self._last_report = monotonic()
        self._keep(progress)
        self._note(progress, new_stage=new_stage)
        ending = progress.step == progress.total or self._stopping.is_set()
        if new_stage or ending or monotonic() - self._last_write > _WRITE_EVERY_SECONDS:
            self._flush(progress, must=ending)
        if self._stopping.is_set():
            raise Stop

    def summary(self, stage: str) -> Mapping[str, float]:
        """Return a stage's last losses, the scores of its kept weights, and ``last/`` scores."""
        return self._summaries.get(stage, {})

    def _begins(self, progress: Progress) -> bool:
        """Tell whether another stage begins, or the same one once more."""
        before = self._latest
        # A stage that did not fit the GPU runs again, and its steps begin anew.
        return before is None or before.stage != progress.stage or before.step >= progress.step

    def _keep(self, progress: Progress) -> None:
        # Scores are rare and all kept; losses of every step would fill the database.
        stride = max(1, math.ceil(progress.total / _POINTS_PER_SERIES))
        on_grid = progress.step % stride == 0 or progress.step in (1, progress.total)
        summary = self._summaries[progress.stage]
        for name, value in progress.values.items():
            score = is_score(name)
            if score or on_grid:
                self._points[(progress.stage, name, progress.step)] = value
            if not score:
                summary[name] = value
            elif progress.step == progress.total:
                summary[f"last/{name}"] = value
        summary.update(progress.best or {})

    def _note(self, progress: Progress, *, new_stage: bool) -> None:
        """Collect events: a stage begins or is done, a validation, a picture."""
        told = {"stage": progress.stage, "step": progress.step, "total": progress.total}
        scores = {name: value for name, value in progress.values.items() if is_score(name)}
        if new_stage:
            self._events.append(("stage", told | {"done": False}))
        if scores:
            self._events.append(("validation", told | {"scores": scores}))
        if progress.picture is not None and self._album is not None:
            name = f"{progress.stage}-{progress.step}-{self._lease.attempt}.png"
            self._album.add(name, progress.picture)
            self._events.append(("picture", told | {"name": name}))
        if progress.step == progress.total:
            self._events.append(("stage", told | {"done": True}))

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
        # Only now: points that could not be written are written with the next ones.
        self._points.clear()
        self._events.clear()
        if state is None:
            raise Replaced(f"job {self._lease.job_id} is no longer attempt {self._lease.attempt}'s")
        if state == JobState.CANCELLING:
            raise Cancelled
        if state == JobState.PAUSING:
            raise Stop

    def _write(self, session: Session, progress: Progress) -> JobState | None:
        assert self._stage is not None
        elapsed = max(monotonic() - self._stage.started, 1e-6)
        state = write(
            session,
            self._lease,
            stage=progress.stage,
            step=progress.step,
            total=progress.total,
            steps_per_second=(progress.step - self._stage.first_step + 1) / elapsed,
        )
        if state is None:
            return None
        if self._stage.earlier_seconds is None:
            self._stage.earlier_seconds = self._take_over(session, progress)
        stage = JobStage(
            job_id=self._lease.job_id,
            stage=progress.stage,
            position=_ORDER.index(progress.stage),
            step=progress.step,
            total=progress.total,
            seconds=self._stage.earlier_seconds + elapsed,
            finished=progress.step == progress.total,
        )
        session.merge(stage)  # an earlier attempt may have written the row
        points = [
            {"job_id": self._lease.job_id, "stage": of, "name": name, "step": step, "value": value}
            for (of, name, step), value in self._points.items()
        ]
        if points:
            session.execute(insert(MetricPoint), points)
        for kind, data in self._events:
            record(session, self._lease.job_id, kind, data | {"attempt": self._lease.attempt})
        return state

    def _take_over(self, session: Session, progress: Progress) -> float:
        """Drop an earlier attempt's points from this step on, and return its seconds up to here."""
        key = {"job_id": self._lease.job_id, "stage": progress.stage}
        points = delete(MetricPoint).where(MetricPoint.step >= progress.step)
        session.execute(points.filter_by(**key))
        earlier = session.get(JobStage, tuple(key.values()))
        return earlier.seconds if earlier is not None and progress.step > 1 else 0.0


@dataclass(frozen=True)
class Album:
    """The pictures of a job, as files."""

    folder: Path
    class_names: Sequence[str]

    def add(self, name: str, picture: Picture) -> None:
        """Draw a picture and write it under its name, whole or not at all."""
        images = {"image": picture.image}
        if picture.stylised is not None:
            images["stylised"] = picture.stylised
        masks = {} if picture.classes is None else {"segmented": picture.classes}
        drawn = comparison(images, masks, self.class_names if masks else ())
        with written_aside(self.folder / name) as draft:
            drawn.save(draft, "PNG")


class Silent:
    """The callback of a process that assists the one that reports."""

    def __call__(self, progress: Progress) -> None:
        pass

    def summary(self, stage: str) -> Mapping[str, float]:  # noqa: ARG002 - as Recorder's
        """Return nothing: the process that reports has the summary."""
        return {}


@dataclass
class _Stage:
    """The step and the time at which this attempt took up a stage."""

    first_step: int
    started: float
    earlier_seconds: float | None = None
