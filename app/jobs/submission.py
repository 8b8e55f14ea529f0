"""Submitting jobs: check, commit, then ring the doorbell."""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.database import now_plus, only_read
from app.datasets import service as datasets
from app.errors import Invalid, NotFound, ProblemItem, invalid_fields, refusal
from app.jobs import benchmark_folds, benchmark_parts, preflight, service, transitions
from app.jobs.queue import JobQueue
from app.jobs.schemas import (
    AdaptRequest,
    BenchmarkRequest,
    EvaluateRequest,
    JobEstimate,
    JobRead,
    PretrainRequest,
    StageEstimateRead,
    StyleFilterRequest,
    TrainStyleRequest,
)
from app.settings import Settings
from app.tables import (
    Dataset,
    IdempotencyKey,
    Job,
    JobDependency,
    JobKind,
    Lane,
    ModelKind,
    TrainedModel,
)
from app.webhooks import targets
from models.capacity.estimate import Estimate
from models.capacity.limits import Room, shortages
from models.config import Device, StyleFilterConfig, preset
from models.data.domain import working_shape
from models.table1.plan import BenchmarkPlan

TrainingRequest = (
    AdaptRequest | TrainStyleRequest | PretrainRequest | StyleFilterRequest | BenchmarkRequest
)
JobRequest = TrainingRequest | EvaluateRequest


@dataclass(frozen=True)
class _Draft:
    """A job that may be stored: it suits its datasets, and fits."""

    job: Job
    config: StyleFilterConfig
    estimate: Estimate
    notes: list[str]


class Jobs:
    """Submits jobs: checks the request against what is registered, then stores and announces."""

    def __init__(self, session: Session, queue: JobQueue, settings: Settings) -> None:
        self._session = session
        self._queue = queue
        self._settings = settings

    def submit(self, request: JobRequest, key: str | None = None) -> JobRead:
        """Store and announce a job. A ``key`` that came before answers with the job it made."""
        self._check_webhook(request.webhook_url)
        digest = _digest(request)
        if key is not None and (known := self._session.get(IdempotencyKey, key)) is not None:
            return self._answer(known, digest)
        if isinstance(request, EvaluateRequest):
            job, config = self._evaluate(request)
        else:
            draft = self._checked(request)
            job, config = draft.job, draft.config
        return self._store(job, config, request, key, digest)

    def estimate(self, request: TrainingRequest) -> JobEstimate:
        """What a job would take; it is checked like one to submit, and not stored."""
        self._check_webhook(request.webhook_url)
        draft = self._checked(request)
        found = draft.estimate
        return JobEstimate(
            stages=[StageEstimateRead.model_validate(stage) for stage in found.stages],
            memory_bytes=found.memory_bytes,
            gpu_memory_bytes=found.gpu_memory_bytes,
            disk_bytes=found.disk_bytes,
            notes=draft.notes,
            config=draft.config,
        )

    def _check_webhook(self, url: str | None) -> None:
        """Before all statements: a slow name server would prolong SQLite's one write lock."""
        if url is None:
            return
        if self._settings.webhook_secret_file is None:
            message = "needs a secret to sign with: set STYLEFILTER_WEBHOOK_SECRET_FILE"
            raise refusal("webhook_url", message)
        try:
            targets.find(url, self._settings.webhook_hosts)
        except ValueError as error:
            raise refusal("webhook_url", str(error)) from error

    def _checked(self, request: TrainingRequest) -> _Draft:
        match request:
            case AdaptRequest():
                return self._adapt(request)
            case TrainStyleRequest():
                return self._train_style(request)
            case PretrainRequest():
                return self._pretrain(request)
            case StyleFilterRequest():
                return self._stylefilter(request)
            case BenchmarkRequest():
                return self._benchmark(request)

    def _adapt(self, request: AdaptRequest) -> _Draft:
        config = self._config(request)
        self._check_training_pair(request.source, request.target, config)
        self._labelled_source(request.source)
        job = Job(
            kind=JobKind.ADAPT,
            reuse=request.reuse,
            source_id=request.source,
            target_id=request.target,
        )
        return self._draft(job, config)

    def _train_style(self, request: TrainStyleRequest) -> _Draft:
        config = self._config(request)
        self._check_training_pair(request.source, request.target, config)
        job = Job(
            kind=JobKind.TRAIN_STYLE,
            reuse=request.reuse,
            source_id=request.source,
            target_id=request.target,
        )
        return self._draft(job, config)

    def _pretrain(self, request: PretrainRequest) -> _Draft:
        config = self._config(request)
        source = self._labelled_source(request.source)
        self._check_scale(source, config.working_nm(source.pixel_size_nm), "source")
        job = Job(kind=JobKind.PRETRAIN, reuse=request.reuse, source_id=request.source)
        return self._draft(job, config)

    def _stylefilter(self, request: StyleFilterRequest) -> _Draft:
        style = self._model(request.style_model, ModelKind.STYLE, "style_model")
        segmenter = self._model(request.segmenter_model, ModelKind.SEGMENTER, "segmenter_model")
        if style.source_id != segmenter.source_id:
            raise refusal("segmenter_model", "was trained on another source than the style model")
        if not math.isclose(style.working_nm, segmenter.working_nm):
            raise refusal("segmenter_model", "works at another pixel size than the style model")
        assert style.target_id is not None
        given = request.config.root.keys() if request.config is not None else set()
        for name in sorted(given & {"style", "segmenter", "pretrain", "pixel_size_factor"}):
            raise refusal(f"config.{name}", "comes from the trained models here; leave it out")
        inherited = {
            "style": style.config["style"],
            "segmenter": segmenter.config["segmenter"],
            "pretrain": segmenter.config["pretrain"],
            "pixel_size_factor": style.config["pixel_size_factor"],
        }
        config = self._config(request, inherited)
        self._check_training_pair(style.source_id, style.target_id, config)
        self._labelled_source(style.source_id)
        job = Job(
            kind=JobKind.STYLEFILTER,
            reuse=request.reuse,
            source_id=style.source_id,
            target_id=style.target_id,
            style_model_id=style.id,
            segmenter_model_id=segmenter.id,
        )
        return self._draft(job, config)

    def _benchmark(self, request: BenchmarkRequest) -> _Draft:
        config = self._config(request)
        pair = self._check_pair(request.source, request.target, config)
        plan = benchmark_folds.plan(self._session, request, pair, config)
        job = Job(
            kind=JobKind.BENCHMARK,
            reuse=request.reuse,
            source_id=request.source,
            target_id=request.target,
            plan=plan.model_dump(mode="json"),
        )
        return self._draft(job, config)

    def _evaluate(self, request: EvaluateRequest) -> tuple[Job, StyleFilterConfig]:
        model = self._model(request.model, None, "model")
        if model.kind == ModelKind.STYLE:
            raise refusal("model", "is a style model: it segments nothing")
        dataset = self._dataset(request.dataset, "dataset")
        _check_classes(dataset, model.class_names, "dataset")
        _check_masks(dataset, request.split, "dataset")
        self._check_scale(dataset, model.working_nm, "dataset")
        style_id = self._style_for(request, model)
        job = Job(
            kind=JobKind.EVALUATE,
            source_id=model.source_id,
            target_id=dataset.id,
            style_model_id=style_id,
            segmenter_model_id=model.id,
            stylise=request.stylise,
            split=request.split,
        )
        config = model.config | {"device": self._settings.device}
        return job, StyleFilterConfig.model_validate(config)

    def _style_for(self, request: EvaluateRequest, model: TrainedModel) -> UUID | None:
        if not request.stylise:
            return None
        if request.style_model is not None:
            style = self._model(request.style_model, ModelKind.STYLE, "style_model")
            if not math.isclose(style.working_nm, model.working_nm):
                raise refusal(
                    "style_model",
                    f"works at {style.working_nm:g} nm per pixel, the model at "
                    f"{model.working_nm:g}",
                )
            return style.id
        if model.style_model_id is None:
            message = "name one: the model was not adapted with any; or set stylise to false"
            raise refusal("style_model", message)
        return model.style_model_id

    def _config(
        self, request: TrainingRequest, inherited: Mapping[str, object] | None = None
    ) -> StyleFilterConfig:
        fields = request.config.root if request.config is not None else {}
        ours: dict[str, object] = {"device": self._settings.device}
        try:
            return preset(request.preset).changed({**ours, **(inherited or {}), **fields})
        except ValidationError as error:
            raise invalid_fields(error.errors(), "body.config") from error

    def _draft(self, job: Job, config: StyleFilterConfig) -> _Draft:
        """The job with its estimate; Invalid, with the numbers, where it cannot fit."""
        notes = self._notes(job)
        settings = self._settings
        estimate = preflight.estimate(self._session, job, config, num_processes=settings.processes)
        room = Room(
            # What a trainer takes of main memory beside a GPU was never measured.
            memory_bytes=settings.job_memory_bytes if config.device == "cpu" else None,
            gpu_memory_bytes=settings.gpu_memory_bytes,
            disk_bytes=shutil.disk_usage(settings.data_folder).free,
        )
        if short := shortages(estimate, room):
            items = [
                ProblemItem(where=f"body.config.{of.field}".rstrip("."), message=of.message)
                for of in short
            ]
            raise Invalid(f"the job cannot fit: {'; '.join(of.message for of in short)}", items)
        return _Draft(job, config, estimate, notes)

    def _notes(self, job: Job) -> list[str]:
        """What to say of the classes a job learns; Invalid where there are none."""
        if job.kind == JobKind.TRAIN_STYLE:
            return []
        assert job.source_id is not None
        source = self._dataset(job.source_id, "source")
        classes = preflight.classes_to_learn(self._session, source, preflight.fold_of(job))
        if not classes:
            message = "has training masks of ignored pixels only: there is nothing to learn"
            raise refusal("source", message)
        if len(classes) > 1:
            return []
        return [
            f"The source's training masks hold one class only, {classes[0]}: "
            "a network trained on them answers nothing else."
        ]

    def _store(
        self,
        job: Job,
        config: StyleFilterConfig,
        request: JobRequest,
        key: str | None,
        digest: str,
    ) -> JobRead:
        session = self._session
        job.id = uuid4()
        job.webhook_url = request.webhook_url
        self._add(job, config, request)
        for index, needed in enumerate(request.after):
            if session.get(Job, needed) is None:
                raise refusal(f"after.{index}", f"there is no job {needed}")
            session.merge(JobDependency(job_id=job.id, needs_id=needed))
        parts = []
        if job.kind == JobKind.BENCHMARK:
            parts = self._add_parts(job, config, request)
        if key is not None:
            session.add(IdempotencyKey(key=key, request_digest=digest, job_id=job.id))
        try:
            session.commit()
        except IntegrityError:
            # The same key came twice at once, and the other was first.
            session.rollback()
            if key is None or (known := session.get(IdempotencyKey, key)) is None:
                raise
            return self._answer(known, digest)
        for lane, stored in {each.lane: each.id for each in (job, *parts)}.items():
            self._queue.announce(stored, lane)  # one message is enough: workers look for more
        only_read(session)
        return service.get(session, job.id)

    def _add(self, job: Job, config: StyleFilterConfig, request: JobRequest) -> None:
        """Store a job with what holds for all of its request."""
        job.config = config.model_dump()
        job.lane = _lane(JobKind(job.kind), config.device)
        job.priority = request.priority
        job.max_attempts = request.max_attempts or self._settings.max_attempts
        job.announce_at = now_plus(self._settings.announce_again_seconds)
        self._session.add(job)
        self._session.flush()
        transitions.submitted(self._session, job)

    def _add_parts(
        self, benchmark: Job, config: StyleFilterConfig, request: JobRequest
    ) -> list[Job]:
        """Store a benchmark's jobs. It waits for their end, whichever that is."""
        session, plan = self._session, BenchmarkPlan.model_validate(benchmark.plan)
        jobs = []
        for part in benchmark_parts.parts(plan, benchmark, config):
            self._add(part.job, config, request)
            for needed in (*part.needs, *request.after):
                session.merge(JobDependency(job_id=part.job.id, needs_id=needed))
            session.add(JobDependency(job_id=benchmark.id, needs_id=part.job.id, success=False))
            jobs.append(part.job)
        session.flush()
        return jobs

    def _answer(self, known: IdempotencyKey, digest: str) -> JobRead:
        """The job that a key made before."""
        if known.request_digest != digest:
            message = "this key came with another request before; use a new one"
            items = [ProblemItem(where="header.Idempotency-Key", message=message)]
            raise Invalid(f"Idempotency-Key: {message}", items)
        return service.get(self._session, known.job_id)

    def _dataset(self, dataset_id: UUID, where: str) -> Dataset:
        try:
            return datasets.hold(self._session, dataset_id)
        except NotFound as error:
            error.errors = [ProblemItem(where=f"body.{where}", message=error.detail)]
            raise

    def _model(self, model_id: UUID, kind: ModelKind | None, where: str) -> TrainedModel:
        model = self._session.get(TrainedModel, model_id)
        if model is None:
            error = NotFound(f"there is no model {model_id}")
            error.errors = [ProblemItem(where=f"body.{where}", message=error.detail)]
            raise error
        if kind is not None and model.kind != kind:
            raise refusal(where, f"is a model of kind {model.kind}, not {kind}")
        return model

    def _labelled_source(self, source_id: UUID) -> Dataset:
        source = self._dataset(source_id, "source")
        _check_masks(source, "train", "source")
        return source

    def _check_training_pair(
        self, source_id: UUID, target_id: UUID, config: StyleFilterConfig
    ) -> None:
        pair = self._check_pair(source_id, target_id, config)
        for where, dataset in zip(("source", "target"), pair, strict=True):
            if not any(section.split == "train" for section in dataset.sections):
                raise refusal(where, "has no section in the train split")

    def _check_pair(
        self, source_id: UUID, target_id: UUID, config: StyleFilterConfig
    ) -> tuple[Dataset, Dataset]:
        """Source and target, which share classes and can be seen at one pixel size."""
        source = self._dataset(source_id, "source")
        target = self._dataset(target_id, "target")
        _check_classes(target, source.class_names, "target")
        working_nm = config.working_nm(source.pixel_size_nm)
        for where, dataset in (("source", source), ("target", target)):
            self._check_scale(dataset, working_nm, where)
        return source, target

    def _check_scale(self, dataset: Dataset, working_nm: float, where: str) -> None:
        for section in dataset.sections:
            native = section.height, section.width
            height, width = working_shape(native, dataset.pixel_size_nm, working_nm)
            if height * width > self._settings.max_section_pixels:
                raise refusal(
                    where,
                    f"has pixels of {dataset.pixel_size_nm} nm, the job works at {working_nm:g}: "
                    f"section {section.name!r} would be resampled to {height} x {width} px",
                )


def _lane(kind: JobKind, device: Device) -> Lane:
    if device == "cpu":
        return Lane.CPU
    return Lane.GPU_INFER if kind in (JobKind.EVALUATE, JobKind.BENCHMARK) else Lane.GPU_TRAIN


def _digest(request: JobRequest) -> str:
    content = json.dumps(request.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    return hashlib.sha256(f"{type(request).__name__} {content}".encode()).hexdigest()


def _check_classes(dataset: Dataset, class_names: Sequence[str], where: str) -> None:
    if list(dataset.class_names) != list(class_names):
        raise refusal(
            where,
            f"has the classes {', '.join(dataset.class_names)}; needed, in this order: "
            f"{', '.join(class_names)}",
        )


def _check_masks(dataset: Dataset, split: str, where: str) -> None:
    if not any(s.split == split and s.has_mask for s in dataset.sections):
        raise refusal(where, f"has no section with a mask in the {split} split")
