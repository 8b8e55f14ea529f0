"""Shows, stops and continues jobs over HTTP."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.responses import FileResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse
from pydantic import Field

from app.http.dependencies import CursorQuery, LimitQuery, ReadingDep, ServicesDep, SessionDep
from app.http.pagination import LARGEST_NUMBER, Page
from app.jobs import service
from app.jobs.curves import MetricsQuery
from app.jobs.dependencies import BroadcasterDep, QueueDep
from app.jobs.events import Listener
from app.jobs.schemas import JobRead, MetricsRead, PriorityChange
from app.jobs.verdicts import VerdictRead
from app.middleware.error_handlers import NO_DATABASE
from app.middleware.strict_route import StrictRoute
from app.tables import JobState

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=NO_DATABASE, route_class=StrictRoute)


JobId = Annotated[UUID, Path(description="The id of the job.")]


@router.get("")
def list_jobs(
    session: ReadingDep,
    state: Annotated[JobState | None, Query(description="Lists only jobs in this state.")] = None,
    parent: Annotated[
        UUID | None, Query(description="Lists only the parts of this benchmark.")
    ] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[JobRead]:
    """List jobs, newest first."""
    return service.list_jobs(session, limit, cursor, state=state, parent=parent)


@router.get("/{job_id}")
def get_job(job_id: JobId, session: ReadingDep) -> JobRead:
    """Show a job: its state, stage, speed and time left and, after its end, models and scores."""
    return service.get(session, job_id)


@router.get("/{job_id}/metrics")
def get_metrics(
    job_id: JobId, session: ReadingDep, asked: Annotated[MetricsQuery, Query()]
) -> MetricsRead:
    """Show the losses and the DICE on validation masks, step by step.

    If a series has more points than are asked for, the answer holds a sample of them. To see more
    points of a part of the series, ask for its steps alone with `from_step` and `to_step`.
    """
    return service.metrics(session, job_id, asked)


@router.get("/{job_id}/verdict")
def get_verdict(job_id: JobId, session: ReadingDep) -> VerdictRead:
    """Show what the target's labels say of the models of an adaptation, and which one to use.

    For each model and class it counts the labelled tiles in which the class is missed, and those in
    which it is claimed although it is absent. It tells whether the difference from the source-only
    model is more than chance, and what to do.
    """
    return service.verdict(session, job_id)


_MAX_ID = (1 << 63) - 1

LastEventId = Annotated[
    int | None,
    Header(
        alias="Last-Event-ID",
        ge=0,
        le=_MAX_ID,
        description="The id of the last event that the client has received. The stream goes on "
        "after it.",
    ),
]
After = Annotated[
    int | None,
    Query(
        ge=0,
        le=_MAX_ID,
        description="The same as `Last-Event-ID`, for clients that cannot set headers. The header "
        "counts if both are given.",
    ),
]


async def get_listener(
    job_id: JobId,
    broadcaster: BroadcasterDep,
    last_event_id: LastEventId = None,
    after: After = None,
) -> AsyncIterator[Listener]:
    start = after if last_event_id is None else last_event_id
    async with broadcaster.listen(job_id, start) as listener:
        yield listener


_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A stream of events. Their names are state, stage, validation, picture, "
        "priority, progress and log; their data is JSON.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The job has ended, and there is no event after the given one."},
}


@router.get("/{job_id}/events", response_class=Response, responses=_STREAM)
async def follow_events(listener: Annotated[Listener, Depends(get_listener)]) -> Response:
    """Follow a job until its end: a stream of server-sent events tells each change.

    Events with an id are stored. They come in order, from the first one or after `Last-Event-ID`.
    The events `progress` and `log` have no id and are not sent again.
    """
    if listener.over:
        return Response(status_code=204)
    # Proxies must not keep events back.
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return EventSourceResponse(listener.stream(), headers=headers)


@router.get("/{job_id}/log", response_class=PlainTextResponse)
def get_log(
    job_id: JobId,
    session: ReadingDep,
    services: ServicesDep,
    attempt: Annotated[
        int | None,
        Query(
            ge=1,
            le=LARGEST_NUMBER,
            description="The number of the attempt, from 1. Without it the answer is the log of "
            "the last attempt that has one.",
        ),
    ] = None,
    tail_bytes: Annotated[
        int, Query(ge=1, le=1 << 24, description="The largest size of the answer, in bytes.")
    ] = 1 << 16,
) -> Response:
    """Show the end of the log that the trainer wrote.

    The trainer is the process that trains for the job. Each attempt to run the job has one trainer
    and one log.
    """
    return PlainTextResponse(service.log(session, services.storage, job_id, attempt, tail_bytes))


@router.get(
    "/{job_id}/pictures/{name}",
    response_class=FileResponse,
    response_description="The picture, as PNG.",
)
def get_picture(
    job_id: JobId,
    name: Annotated[
        str,
        Path(
            max_length=100,
            pattern=r"^[a-z]+-[0-9]+-[0-9]+\.png$",
            description="The name of the picture, which an event `picture` holds.",
        ),
    ],
    session: ReadingDep,
    services: ServicesDep,
) -> Response:
    """Show a picture that was taken during training, as PNG.

    It shows a piece of an image and the outputs of the networks for it at that step.
    """
    return FileResponse(service.picture(session, services.storage, job_id, name))


ReportFile = Annotated[
    Literal[
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
    ],
    Field(description="The name of a file of the report; without it, report.html."),
]


@router.get(
    "/{job_id}/report", response_class=FileResponse, response_description="The file of the report."
)
@router.get(
    "/{job_id}/report/{name:path}",
    response_class=FileResponse,
    response_description="The file of the report.",
)
def get_report(
    job_id: JobId, session: ReadingDep, services: ServicesDep, name: ReportFile = "report.html"
) -> Response:
    """Show the report of a benchmark that has succeeded: a page, or another file of the report."""
    return FileResponse(service.report(session, services.storage, job_id, name))


@router.get(
    "/{job_id}/cell", response_class=FileResponse, response_description="The results, as JSON."
)
def get_cell(job_id: JobId, session: ReadingDep, services: ServicesDep) -> Response:
    """Show the results of a part of a benchmark, as soon as the part has succeeded.

    They hold the scores of each test section, times, the verdict and the configuration: all that
    `stylefilter table` needs to make a report of several benchmarks.
    """
    return FileResponse(service.cell(session, services.storage, job_id))


@router.post("/{job_id}/cancel", status_code=202)
def cancel_job(job_id: JobId, session: SessionDep) -> JobRead:
    """Cancel a job. A waiting job ends at once, a running job when its trainer has stopped."""
    return service.cancel(session, job_id)


@router.post("/{job_id}/pause", status_code=202)
def pause_job(job_id: JobId, session: SessionDep) -> JobRead:
    """Pause a job. A waiting job stops at once, a running job when its state is saved."""
    return service.pause(session, job_id)


@router.post("/{job_id}/resume", status_code=202)
def resume_job(job_id: JobId, session: SessionDep, queue: QueueDep) -> JobRead:
    """Resume a paused job: it goes on exactly where it stopped.

    An interrupted job, whose worker was lost, need not wait any longer: it is queued at once.
    """
    return service.resume(session, queue, job_id)


@router.post("/{job_id}/retry", status_code=202)
def retry_job(job_id: JobId, session: SessionDep, queue: QueueDep) -> JobRead:
    """Retry a failed job. It goes on from its last saved state; after a full disk it has none."""
    return service.retry(session, queue, job_id)


@router.patch("/{job_id}")
def change_job(job_id: JobId, change: PriorityChange, session: SessionDep) -> JobRead:
    """Change the priority of a job that has not ended."""
    return service.set_priority(session, job_id, change.priority)
