"""Takes requests for jobs over HTTP; each is answered at once with 202 and the job's address."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from app.http.dependencies import ServicesDep, SessionDep, address
from app.jobs.checks import Context
from app.jobs.dependencies import Key, QueueDep
from app.jobs.drafts import JobRequest, TrainingRequest
from app.jobs.request_schemas import (
    AdaptRequest,
    BenchmarkRequest,
    EvaluateRequest,
    PretrainRequest,
    ProbeRequest,
    StyleFilterRequest,
    TrainStyleRequest,
)
from app.jobs.schemas import JobEstimate, JobRead
from app.jobs.submission import estimate, submit
from app.middleware.error_handlers import NO_DATABASE
from app.middleware.strict_route import StrictRoute

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=NO_DATABASE, route_class=StrictRoute)

DryRun = Annotated[
    bool,
    Query(
        description="`true` only checks the request: the answer is 200 with the steps, memory and "
        "disk that the job would take, and no job is stored."
    ),
]

_DRY: dict[int | str, dict[str, Any]] = {
    200: {
        "model": JobEstimate,
        "description": "The answer to a dry run: the service could take the job.",
    }
}

_ACCEPTED: dict[str, Any] = {
    "status_code": 202,
    "response_description": "The job was stored. The header `Location` holds its address.",
}


def get_context(session: SessionDep, services: ServicesDep) -> Context:
    return Context(session, services.settings)


ContextDep = Annotated[Context, Depends(get_context)]


class Submission:
    """Answers the requests of all routes that take jobs."""

    def __init__(
        self,
        request: Request,
        response: Response,
        context: ContextDep,
        queue: QueueDep,
        key: Key = None,
    ) -> None:
        self._request, self._response = request, response
        self._context, self._queue, self._key = context, queue, key

    def take(self, request: TrainingRequest, dry_run: bool) -> JobRead | Response:
        """Answer 202 with the job or, for a dry run, 200 with its estimate."""
        if dry_run:
            found = estimate(self._context, request)
            return Response(found.model_dump_json(), media_type="application/json")
        return self.store(request)

    def store(self, request: JobRequest) -> JobRead:
        """Store the job, and answer 202 with it and its address."""
        job = submit(self._context, self._queue, request, self._key)
        self._response.headers["Location"] = address(self._request, f"/jobs/{job.id}")
        return job


SubmissionDep = Annotated[Submission, Depends()]


@router.post("/adapt", response_model=JobRead, responses=_DRY, **_ACCEPTED)
def adapt(
    request: AdaptRequest, submission: SubmissionDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Adapt a segmentation model to a target. This job runs the whole method of the paper.

    The job trains the segmenter, a U-Net, on the source and its masks. It trains a style model, the
    generator of CUT, and stylises the target with it. It then trains a copy of the segmenter on
    source and target together, with pseudo-labels that the labels of the target's images filter.
    Where the target has masks in its test split, the result is scored.
    """
    return submission.take(request, dry_run)


@router.post("/train-style", response_model=JobRead, responses=_DRY, **_ACCEPTED)
def train_style(
    request: TrainStyleRequest, submission: SubmissionDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Train only a style model: the generator of CUT, which stylises images of the target."""
    return submission.take(request, dry_run)


@router.post("/pretrain", response_model=JobRead, responses=_DRY, **_ACCEPTED)
def pretrain(
    request: PretrainRequest, submission: SubmissionDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Train only the segmenter, a U-Net, on the source and its masks."""
    return submission.take(request, dry_run)


@router.post("/stylefilter", response_model=JobRead, responses=_DRY, **_ACCEPTED)
def stylefilter(
    request: StyleFilterRequest, submission: SubmissionDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Adapt a segmenter to the target with models that earlier jobs have trained.

    The job takes a segmenter of the source and a style model, and does the last part of an
    adaptation: training on source and target with filtered pseudo-labels.
    """
    return submission.take(request, dry_run)


@router.post("/benchmark", response_model=JobRead, responses=_DRY, **_ACCEPTED)
def benchmark(
    request: BenchmarkRequest, submission: SubmissionDep, dry_run: DryRun = False
) -> JobRead | Response:
    """Measure Table 1 of the paper for a pair of datasets: many methods, each as a row.

    Each method is trained and tested several times, on other sections each time; such a repetition
    is a fold. `GET /jobs/{job_id}/report` shows the table when the job has succeeded.
    """
    return submission.take(request, dry_run)


@router.post("/evaluate", **_ACCEPTED)
def evaluate(request: EvaluateRequest, submission: SubmissionDep) -> JobRead:
    """Score a trained model on those sections of a dataset that have masks."""
    return submission.store(request)


@router.post("/probe", **_ACCEPTED)
def probe(request: ProbeRequest, submission: SubmissionDep) -> JobRead:
    """Ask trained models about a target, before anything is trained for it.

    The job takes about a minute for each model. Afterwards
    `GET /datasets/{dataset_id}/suggested-sources` ranks the models,
    `GET /datasets/{dataset_id}/next-tiles` says which tiles to label next, and a dry run of
    `POST /jobs/adapt` says what to expect.
    """
    return submission.store(request)
