"""Jobs over HTTP: every submission answers at once with 202 and where to look."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.responses import FileResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse

from app.dependencies import CursorQuery, LimitQuery, ReadingDep, ServicesDep, SessionDep
from app.error_handlers import NO_DATABASE
from app.jobs import service
from app.jobs.checks import Context
from app.jobs.curves import NO_NUL, MetricsQuery
from app.jobs.dependencies import BroadcasterDep, QueueDep
from app.jobs.drafts import JobRequest, TrainingRequest
from app.jobs.events import Listener
from app.jobs.request_schemas import (
    AdaptRequest,
    BenchmarkRequest,
    EvaluateRequest,
    PretrainRequest,
    StyleFilterRequest,
    TrainStyleRequest,
)
from app.jobs.schemas import JobEstimate, JobRead, MetricsRead, PriorityChange
from app.jobs.submission import estimate, submit
from app.pagination import Page
from app.tables import JobState

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=NO_DATABASE)


DryRun = Annotated[
    bool,
    Query(
        description="`true` checks the request and answers 200 with what the job would take; it "
        "stores no job."
    ),
]

_DRY: dict[int | str, dict[str, Any]] = {
    200: {"model": JobEstimate, "description": "The answer to a dry run: the job can be taken."}
}


Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=NO_NUL,
        description="A name that you choose for this request. If the same request comes again with "
        "the same key within a day, the answer is the job that the first one made.",
    ),
]


def get_context(session: SessionDep, services: ServicesDep) -> Context:
    return Context(session, services.settings)


ContextDep = Annotated[Context, Depends(get_context)]


class Submission:
    """Takes the requests of all submitting routes."""

    def __init__(
        self,
        response: Response,
        context: ContextDep,
        queue: QueueDep,
        key: Key = None,
    ) -> None:
        self._response, self._context = response, context
        self._queue, self._key = queue, key

    def take(self, request: TrainingRequest, dry_run: bool) -> JobRead | Response:
        """Answer 202 with the job, or 200 with what it would take."""
        if dry_run:
            found = estimate(self._context, request)
            return Response(found.model_dump_json(), media_type="application/json")
        return self.store(request)

    def store(self, request: JobRequest) -> JobRead:
        """Answer 202 with the job, and tell where it is."""
        job = submit(self._context, self._queue, request, self._key)
        self._response.headers["Location"] = f"/jobs/{job.id}"
        return job


SubmissionDep = Annotated[Submission, Depends()]


@router.post("/adapt", status_code=202, response_model=JobRead, responses=_DRY)
def adapt(
    request: AdaptRequest, submission: SubmissionDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Adapt a source to a target: train CUT, pre-train the U-Net, run StyleFilter, evaluate."""
    return submission.take(request, dry_run)


@router.post("/train-style", status_code=202, response_model=JobRead, responses=_DRY)
def train_style(
    request: TrainStyleRequest, submission: SubmissionDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Train CUT alone, the network that renders images of the target in the source's style."""
    return submission.take(request, dry_run)


@router.post("/pretrain", status_code=202, response_model=JobRead, responses=_DRY)
def pretrain(
    request: PretrainRequest, submission: SubmissionDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Train the U-Net, the network that segments, on the source alone."""
    return submission.take(request, dry_run)


@router.post("/stylefilter", status_code=202, response_model=JobRead, responses=_DRY)
def stylefilter(
    request: StyleFilterRequest, submission: SubmissionDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Adapt a pre-trained segmenter with a trained style model and image-level labels."""
    return submission.take(request, dry_run)


@router.post("/benchmark", status_code=202, response_model=JobRead, responses=_DRY)
def benchmark(
    request: BenchmarkRequest, submission: SubmissionDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Measure the rows of Table 1 over folds; `GET /jobs/{id}/report` shows the table."""
    return submission.take(request, dry_run)


@router.post("/evaluate", status_code=202)
def evaluate(request: EvaluateRequest, submission: SubmissionDep) -> JobRead:
    """Score a model on the sections of a dataset that have masks."""
    return submission.store(request)


@router.get("")
def list_jobs(
    session: ReadingDep,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    parent: Annotated[UUID | None, Query(description="Only parts of this benchmark.")] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[JobRead]:
    """Jobs, newest first."""
    return service.list_jobs(session, limit, cursor, state=state, parent=parent)


@router.get("/{job_id}")
def get_job(job_id: UUID, session: ReadingDep) -> JobRead:
    """State, stage, step, speed and time left of a job; its models and scores when done."""
    return service.get(session, job_id)


@router.get("/{job_id}/metrics")
def get_metrics(
    job_id: UUID, session: ReadingDep, asked: Annotated[MetricsQuery, Query()]
) -> MetricsRead:
    """Losses and validation DICE by step; of more points than asked for, a sample.

    A sample of fewer steps, `from_step` to `to_step`, is a finer one.
    """
    return service.metrics(session, job_id, asked)


_MAX_ID = (1 << 63) - 1

LastEventId = Annotated[
    int | None,
    Header(alias="Last-Event-ID", ge=0, le=_MAX_ID, description="Go on after this event."),
]
After = Annotated[
    int | None,
    Query(ge=0, le=_MAX_ID, description="The same, where headers cannot be set; they go first."),
]


async def get_listener(
    job_id: UUID,
    broadcaster: BroadcasterDep,
    last_event_id: LastEventId = None,
    after: After = None,
) -> AsyncIterator[Listener]:
    start = after if last_event_id is None else last_event_id
    async with broadcaster.listen(job_id, start) as listener:
        yield listener


_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events named state, stage, validation, picture, priority, progress and "
        "log; their data is JSON.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The job has ended, and nothing happened after the given event."},
}


@router.get("/{job_id}/events", response_class=Response, responses=_STREAM)
async def follow_events(listener: Annotated[Listener, Depends(get_listener)]) -> Response:
    """What happens to a job, as server-sent events, until it has ended.

    Events with an id are stored and come in order, from the first on or after `Last-Event-ID`;
    `progress` (when it changed) and `log` (new lines) have none and are not repeated.
    """
    if listener.over:
        return Response(status_code=204)
    # Proxies must not keep events back.
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return EventSourceResponse(listener.stream(), headers=headers)


@router.get("/{job_id}/log", response_class=PlainTextResponse)
def get_log(
    job_id: UUID,
    session: ReadingDep,
    services: ServicesDep,
    attempt: Annotated[int | None, Query(ge=1, description="Default: the last.")] = None,
    tail_bytes: Annotated[int, Query(ge=1, le=1 << 24, description="No more than this.")] = 1 << 16,
) -> Response:
    """The end of what the trainer of an attempt wrote."""
    return PlainTextResponse(service.log(session, services.storage, job_id, attempt, tail_bytes))


@router.get("/{job_id}/pictures/{name}", response_class=FileResponse)
def get_picture(
    job_id: UUID,
    name: Annotated[str, Path(pattern=r"^[a-z]+-[0-9]+-[0-9]+\.png$")],
    session: ReadingDep,
    services: ServicesDep,
) -> Response:
    """What the networks made of a piece of an image at a step, as PNG; events tell the names."""
    return FileResponse(service.picture(session, services.storage, job_id, name))


ReportFile = Literal[
    "report.html",
    "report.md",
    "report.json",
    "folds.json",
    "figure.png",
    "charts/mean.svg",
    "charts/classes.svg",
    "charts/curves.svg",
    "charts/styles.svg",
    "charts/time.svg",
]


@router.get("/{job_id}/report", response_class=FileResponse)
@router.get("/{job_id}/report/{name:path}", response_class=FileResponse)
def get_report(
    job_id: UUID, session: ReadingDep, services: ServicesDep, name: ReportFile = "report.html"
) -> Response:
    """A benchmark's table: a page, or as Markdown with charts, JSON, its folds, its figure."""
    return FileResponse(service.report(session, services.storage, job_id, name))


@router.post("/{job_id}/cancel", status_code=202)
def cancel_job(job_id: UUID, session: SessionDep) -> JobRead:
    """Cancel: a waiting job at once; a running one is `cancelling` until its trainer stopped."""
    return service.cancel(session, job_id)


@router.post("/{job_id}/pause", status_code=202)
def pause_job(job_id: UUID, session: SessionDep) -> JobRead:
    """Pause: a waiting job at once; a running one is `pausing` until its state is saved."""
    return service.pause(session, job_id)


@router.post("/{job_id}/resume", status_code=202)
def resume_job(job_id: UUID, session: SessionDep, queue: QueueDep) -> JobRead:
    """Queue a paused job; it goes on exactly where it stopped. An interrupted one waits no more."""
    return service.resume(session, queue, job_id)


@router.post("/{job_id}/retry", status_code=202)
def retry_job(job_id: UUID, session: SessionDep, queue: QueueDep) -> JobRead:
    """Queue a failed job again; it goes on from the last state that was saved."""
    return service.retry(session, queue, job_id)


@router.patch("/{job_id}")
def change_job(job_id: UUID, change: PriorityChange, session: SessionDep) -> JobRead:
    """Change the priority of a job that has not ended."""
    return service.set_priority(session, job_id, change.priority)
