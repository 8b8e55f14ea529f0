"""Reads the new events, log lines and progress of a job, and encodes them for a stream.

Reading them once is called a look.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from fastapi.sse import format_sse_event
from pydantic import BaseModel
from sqlalchemy import and_, select
from sqlalchemy.orm import Session, load_only

from app.columns import stored_object
from app.database import Database
from app.jobs.event_schemas import ProgressEvent
from app.jobs.logs import LogFollower
from app.jobs.reading import count_parts
from app.jobs.schemas import PartsRead
from app.storage import Storage
from app.tables import UNFINISHED, Job, JobEvent, JobKind, JobStage, MetricPoint
from models.training.progress import EARLIER_LABEL_SCORES, LABEL_SCORES

_EVENTS_PER_LOOK = 500
_POINTS_PER_LOOK = 64
_SHOWN = (
    Job.kind,
    Job.state,
    Job.attempt,
    Job.stage,
    Job.step,
    Job.total,
    Job.steps_per_second,
)


@dataclass(frozen=True)
class Found:
    """The results of one look at a job, encoded for a stream.

    ``events`` holds each stored event with its id. ``more`` says that there are further events.
    """

    events: Sequence[tuple[int, bytes]]
    log: Sequence[bytes]
    recent_log: bytes | None
    progress: bytes
    progress_changed: bool
    ended: bool
    more: bool


class Reader:
    """Reads one job. Any thread may use it, but only one at a time."""

    def __init__(self, database: Database, storage: Storage, job_id: UUID) -> None:
        self.job_id = job_id
        self._database = database
        self._log = LogFollower(storage, job_id)
        self._progress: ProgressEvent | None = None

    def look(self, after: int) -> Found | None:
        """Return the events after the one with the id ``after``, and other changes since last time.

        None says that there is no such job.
        """
        joined = and_(JobEvent.job_id == Job.id, JobEvent.id > after)
        current = and_(JobStage.job_id == Job.id, JobStage.stage == Job.stage)
        statement = (
            select(Job, JobStage.seconds, JobEvent)
            .options(load_only(*_SHOWN))
            .outerjoin(JobStage, current)
            .outerjoin(JobEvent, joined)
            .where(Job.id == self.job_id)
            .order_by(JobEvent.id)
            .limit(_EVENTS_PER_LOOK)
        )
        with self._database.reading() as session:
            rows = session.execute(statement).all()
            if not rows:
                return None
            job, seconds, _ = rows[0]
            before = self._progress
            losses = self._losses(session, job)
            parts = count_parts(session, [job.id]) if job.kind == JobKind.BENCHMARK else {}
            progress = _progress(job, seconds or 0.0, losses, parts.get(job.id))
        self._progress = progress
        more = len(rows) == _EVENTS_PER_LOOK
        ended = job.state not in UNFINISHED and not more
        log = [_encode("log", event) for event in self._log.look(job.attempt, ended=ended)]
        recent = self._log.recent()
        return Found(
            events=[_recorded(event) for *_, event in rows if event is not None],
            log=log,
            recent_log=None if recent is None else _encode("log", recent),
            progress=_encode("progress", progress),
            progress_changed=before is not None and progress != before,
            ended=ended,
            more=more,
        )

    def _losses(self, session: Session, job: Job) -> dict[str, float | None]:
        """Return the last value of each loss of the stage, reading only steps that are new."""
        before = self._progress
        known: dict[str, float | None] = {}
        since = -1
        if before is not None and (before.attempt, before.stage) == (job.attempt, job.stage):
            if before.step == job.step:
                return before.losses
            if before.step < job.step:  # otherwise the stage has begun again
                known, since = before.losses, before.step
        if job.stage is None:
            return known
        points = (
            select(MetricPoint.name, MetricPoint.value)
            .where(
                MetricPoint.job_id == job.id,
                MetricPoint.stage == job.stage,
                MetricPoint.step > since,
                ~MetricPoint.name.contains("dice/"),
                MetricPoint.name.not_in((*LABEL_SCORES, *EARLIER_LABEL_SCORES)),
            )
            .order_by(MetricPoint.step.desc())
            .limit(_POINTS_PER_LOOK)
        )
        newest = [(name, value) for name, value in session.execute(points)]
        return known | dict(reversed(newest))


def _progress(
    job: Job, seconds: float, losses: dict[str, float | None], parts: PartsRead | None
) -> ProgressEvent:
    return ProgressEvent(
        state=job.state,
        attempt=job.attempt,
        stage=job.stage,
        step=job.step,
        total=job.total,
        seconds=seconds,
        steps_per_second=job.steps_per_second,
        eta_seconds=job.eta_seconds,
        losses=losses,
        parts=parts,
    )


def _recorded(event: JobEvent) -> tuple[int, bytes]:
    data = stored_object(event.data) | {"id": event.id, "at": event.created_at.isoformat()}
    text = format_sse_event(data_str=json.dumps(data), event=event.kind, id=str(event.id))
    return event.id, text


def _encode(kind: str, event: BaseModel) -> bytes:
    # The JSON is ASCII, because some clients split text at other characters than line feeds.
    return format_sse_event(data_str=event.model_dump_json(ensure_ascii=True), event=kind)
