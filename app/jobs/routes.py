"""Jobs over HTTP: every submission answers at once with 202 and where to look."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from app.dependencies import ReadingDep, ServicesDep, SessionDep
from app.jobs import service
from app.jobs.schemas import (
    AdaptRequest,
    EvaluateRequest,
    JobEstimate,
    JobRead,
    MetricsRead,
    PretrainRequest,
    StyleFilterRequest,
    TrainStyleRequest,
)
from app.jobs.submission import Jobs
from app.pagination import CursorQuery, LimitQuery, Page
from app.tables import JobState

router = APIRouter(prefix="/jobs", tags=["jobs"])


def get_jobs(session: SessionDep, services: ServicesDep) -> Jobs:
    return Jobs(session, services.queue, services.settings)


_NO_NUL = r"^[^\x00]*$"  # PostgreSQL refuses to compare a text that holds one

JobsDep = Annotated[Jobs, Depends(get_jobs)]

DryRun = Annotated[
    bool,
    Query(description="Check the request and answer 200 with what the job would take; store none."),
]

_DRY: dict[int | str, dict[str, Any]] = {
    200: {"model": JobEstimate, "description": "A dry run: the job would be taken."}
}


@router.post("/adapt", status_code=202, response_model=JobRead, responses=_DRY)
def adapt(
    request: AdaptRequest, response: Response, jobs: JobsDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Adapt a source to a target: train CUT, pre-train the U-Net, run StyleFilter, evaluate."""
    if dry_run:
        return _dry(jobs.estimate(request))
    return _accepted(response, jobs.adapt(request))


@router.post("/train-style", status_code=202, response_model=JobRead, responses=_DRY)
def train_style(
    request: TrainStyleRequest, response: Response, jobs: JobsDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Train CUT alone (target -> source)."""
    if dry_run:
        return _dry(jobs.estimate(request))
    return _accepted(response, jobs.train_style(request))


@router.post("/pretrain", status_code=202, response_model=JobRead, responses=_DRY)
def pretrain(
    request: PretrainRequest, response: Response, jobs: JobsDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Train the U-Net on the source alone."""
    if dry_run:
        return _dry(jobs.estimate(request))
    return _accepted(response, jobs.pretrain(request))


@router.post("/stylefilter", status_code=202, response_model=JobRead, responses=_DRY)
def stylefilter(
    request: StyleFilterRequest, response: Response, jobs: JobsDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Adapt a pre-trained segmenter with a trained style model and image-level labels."""
    if dry_run:
        return _dry(jobs.estimate(request))
    return _accepted(response, jobs.stylefilter(request))


@router.post("/evaluate", status_code=202)
def evaluate(request: EvaluateRequest, response: Response, jobs: JobsDep) -> JobRead:
    """Score a model on the masked sections of a dataset."""
    return _accepted(response, jobs.evaluate(request))


@router.get("")
def list_jobs(
    session: ReadingDep,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[JobRead]:
    """Jobs, newest first."""
    return service.list_jobs(session, limit, cursor, state)


@router.get("/{job_id}")
def get_job(job_id: UUID, session: ReadingDep) -> JobRead:
    """State, stage, step, speed and time left of a job; its models and scores when done."""
    return service.get(session, job_id)


@router.get("/{job_id}/metrics")
def get_metrics(
    job_id: UUID,
    session: ReadingDep,
    stage: Annotated[str | None, Query(pattern=_NO_NUL, description="Only this stage.")] = None,
    name: Annotated[str | None, Query(pattern=_NO_NUL, description="Only this series.")] = None,
) -> MetricsRead:
    """Losses and validation DICE by step."""
    return service.metrics(session, job_id, stage, name)


@router.post("/{job_id}/cancel", status_code=202)
def cancel_job(job_id: UUID, session: SessionDep) -> JobRead:
    """Cancel: a queued job at once; a running one is `cancelling` until its trainer has stopped."""
    return service.cancel(session, job_id)


def _accepted(response: Response, job: JobRead) -> JobRead:
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


def _dry(estimate: JobEstimate) -> Response:
    return Response(estimate.model_dump_json(), media_type="application/json")
