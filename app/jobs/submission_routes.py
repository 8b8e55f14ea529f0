"""Submitting jobs over HTTP: each request is answered at once, with 202 and where the job is."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response

from app.dependencies import ServicesDep, SessionDep
from app.error_handlers import NO_DATABASE
from app.jobs.checks import Context
from app.jobs.curves import NO_NUL
from app.jobs.dependencies import QueueDep
from app.jobs.drafts import JobRequest, TrainingRequest
from app.jobs.request_schemas import (
    AdaptRequest,
    BenchmarkRequest,
    EvaluateRequest,
    PretrainRequest,
    StyleFilterRequest,
    TrainStyleRequest,
)
from app.jobs.schemas import JobEstimate, JobRead
from app.jobs.submission import estimate, submit

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
        self, response: Response, context: ContextDep, queue: QueueDep, key: Key = None
    ) -> None:
        self._response, self._context, self._queue, self._key = response, context, queue, key

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
