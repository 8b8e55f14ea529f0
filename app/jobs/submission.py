"""Submits jobs: checks the request, commits the job, then announces it to the workers."""

import hashlib
import json
from uuid import uuid4

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.database import now_plus, only_read
from app.errors import refusal
from app.jobs import benchmark_parts, keys, orders, service
from app.jobs.checks import Context
from app.jobs.drafts import Draft, JobRequest, TrainingRequest, draft, draft_training
from app.jobs.queue import JobQueue
from app.jobs.schemas import JobEstimate, JobRead, StageEstimateRead
from app.probes.benefit import expected_benefit
from app.probes.schemas import ExpectedBenefit
from app.settings import Settings
from app.storage import Storage
from app.tables import IdempotencyKey, Job, JobDependency, JobKind, Lane
from app.webhooks import targets
from models.config.stages import Device
from models.table1.plan import BenchmarkPlan


def submit(
    context: Context, queue: JobQueue, request: JobRequest, key: str | None = None
) -> JobRead:
    """Store a job, announce it and return it.

    If the same request came before with the same ``key``, return the job that it made then.
    """
    _check_webhook(context.settings, request.webhook_url)
    session, digest = context.session, _digest(request)
    if (known := _known(session, key, digest)) is not None:
        return known
    jobs = _add(context, draft(context, request), request)
    job_id = jobs[0].id
    if key is not None:
        session.add(IdempotencyKey(key=key, request_digest=digest, job_id=job_id))
    try:
        session.commit()
    except IntegrityError:
        # Two requests with the same key came at once, and the other one was stored first.
        session.rollback()
        if (known := _known(session, key, digest)) is None:
            raise
        return known
    for lane, waiting in {job.lane: job.id for job in jobs}.items():
        queue.announce(waiting, lane)  # one message a lane is enough: workers look for more jobs
    only_read(session)
    return service.get(session, job_id)


def estimate(context: Context, request: TrainingRequest) -> JobEstimate:
    """Check a request as if it were submitted, and return the estimate of its job."""
    _check_webhook(context.settings, request.webhook_url)
    drafted = draft_training(context, request)
    found = drafted.estimate
    return JobEstimate(
        stages=[StageEstimateRead.model_validate(stage) for stage in found.stages],
        memory_bytes=found.memory_bytes,
        gpu_memory_bytes=found.gpu_memory_bytes,
        disk_bytes=found.disk_bytes,
        notes=list(drafted.notes),
        benefit=_benefit(context, drafted.job),
        config=drafted.config,
    )


def _benefit(context: Context, job: Job) -> ExpectedBenefit | None:
    """Return what to expect of a job that adapts a segmenter."""
    if job.kind not in (JobKind.ADAPT, JobKind.STYLEFILTER):
        return None
    assert job.source_id is not None
    assert job.target_id is not None
    storage = Storage(context.settings.data_folder)
    return expected_benefit(context.session, storage, job.source_id, job.target_id)


def _check_webhook(settings: Settings, url: str | None) -> None:
    """Refuse a URL that no webhook can be sent to.

    This check comes before any SQL statement, because a slow name server would prolong SQLite's
    one write lock.
    """
    if url is None:
        return
    if settings.webhook_secret_file is None:
        raise refusal(
            "webhook_url",
            "this service sends no webhooks, because it has no secret to sign them with: leave "
            "webhook_url out, or ask the operator to set STYLEFILTER_WEBHOOK_SECRET_FILE",
        )
    try:
        targets.find(url, settings.webhook_hosts)
    except ValueError as error:
        raise refusal("webhook_url", f"the webhook's URL {error}") from error


def _known(session: Session, key: str | None, digest: str) -> JobRead | None:
    """Return the job that the same request made before with this key."""
    known = None if key is None else keys.find(session, key, digest)
    if known is None:
        return None
    assert known.job_id is not None  # the digest names the kind of the request
    return service.get(session, known.job_id)


def store(session: Session, job: Job, settings: Settings) -> None:
    """Add the row of a job that waits, and its first event; the caller commits and announces."""
    job.announce_at = now_plus(settings.announce_again_seconds)
    session.add(job)
    session.flush()
    orders.submitted(session, job)


def _digest(request: JobRequest) -> str:
    content = json.dumps(request.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    return hashlib.sha256(f"{type(request).__name__} {content}".encode()).hexdigest()


def _add(context: Context, drafted: Draft, request: JobRequest) -> list[Job]:
    """Add a job, its dependencies and, for a benchmark, its parts; return the job and its parts."""
    session, job = context.session, drafted.job
    job.id = uuid4()
    job.webhook_url = request.webhook_url
    _add_job(context, drafted, request)
    for index, needed in enumerate(request.after):
        if session.get(Job, needed) is None:
            raise refusal(
                f"after.{index}", f"there is no job {needed}: name jobs that GET /jobs lists"
            )
        session.merge(JobDependency(job_id=job.id, needs_id=needed))
    parts = _add_parts(context, drafted, request) if job.kind == JobKind.BENCHMARK else []
    return [job, *parts]


def _add_job(context: Context, drafted: Draft, request: JobRequest) -> None:
    """Add the row of a job, with the fields that all jobs of the request share."""
    job, settings = drafted.job, context.settings
    job.config = drafted.config.model_dump(mode="json")
    job.lane = _lane(JobKind(job.kind), drafted.config.device)
    job.priority = request.priority
    job.max_attempts = request.max_attempts or settings.max_attempts
    store(context.session, job, settings)


def _add_parts(context: Context, benchmark: Draft, request: JobRequest) -> list[Job]:
    """Add the parts of a benchmark, which waits until each has ended, in success or failure."""
    session, plan = context.session, BenchmarkPlan.model_validate(benchmark.job.plan)
    jobs = []
    for part in benchmark_parts.parts(plan, benchmark.job, benchmark.config):
        _add_job(context, Draft(part.job, part.config), request)
        for needed in (*part.needs, *request.after):
            session.merge(JobDependency(job_id=part.job.id, needs_id=needed))
        waits = JobDependency(job_id=benchmark.job.id, needs_id=part.job.id, success=False)
        session.add(waits)
        jobs.append(part.job)
    session.flush()
    return jobs


def _lane(kind: JobKind, device: Device) -> Lane:
    if device == "cpu":
        return Lane.CPU
    asks_only = kind in (JobKind.EVALUATE, JobKind.BENCHMARK, JobKind.PROBE)
    return Lane.GPU_INFER if asks_only else Lane.GPU_TRAIN
