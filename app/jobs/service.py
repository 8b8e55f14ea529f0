"""Use cases of jobs: submit, look at, cancel. Commit first, then ring the doorbell."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import case, select, update
from sqlalchemy.orm import Session

from app.database import now_plus, only_read
from app.datasets import service as datasets
from app.errors import Conflict, Invalid, NotFound, ProblemItem, invalid_fields
from app.jobs.schemas import (
    AdaptRequest,
    EvaluateRequest,
    JobError,
    JobRead,
    JobResult,
    MetricsRead,
    PretrainRequest,
    Series,
    StageRead,
    StyleFilterRequest,
    TrainStyleRequest,
)
from app.pagination import Page, newest_first
from app.queue import JobQueue
from app.settings import Settings
from app.tables import (
    UNFINISHED,
    Dataset,
    Job,
    JobKind,
    JobStage,
    JobState,
    MetricPoint,
    ModelKind,
    TrainedModel,
)
from models.config import PresetName, StyleFilterConfig, preset
from models.data.domain import working_shape

_REPLACED_BY = {
    "epochs": "steps",
    "epochs_constant": "steps",
    "epochs_decay": "steps",
    "validate_every_epochs": "validate_every_steps",
}
"""Lengths in epochs, and the steps that would replace them."""


class Jobs:
    """Submits jobs: checks the request against what is registered, then stores and announces."""

    def __init__(self, session: Session, queue: JobQueue, settings: Settings) -> None:
        self._session = session
        self._queue = queue
        self._settings = settings

    def adapt(self, request: AdaptRequest) -> JobRead:
        config = self._config(request.preset, request.config)
        self._check_pair(request.source, request.target, config)
        self._labelled_source(request.source)
        return self._submit(
            Job(kind=JobKind.ADAPT, source_id=request.source, target_id=request.target), config
        )

    def train_style(self, request: TrainStyleRequest) -> JobRead:
        config = self._config(request.preset, request.config)
        self._check_pair(request.source, request.target, config)
        return self._submit(
            Job(kind=JobKind.TRAIN_STYLE, source_id=request.source, target_id=request.target),
            config,
        )

    def pretrain(self, request: PretrainRequest) -> JobRead:
        config = self._config(request.preset, request.config)
        source = self._labelled_source(request.source)
        self._check_scale(source, source.pixel_size_nm * config.pixel_size_factor, "source")
        return self._submit(Job(kind=JobKind.PRETRAIN, source_id=request.source), config)

    def stylefilter(self, request: StyleFilterRequest) -> JobRead:
        style = self._model(request.style_model, ModelKind.STYLE, "style_model")
        segmenter = self._model(request.segmenter_model, ModelKind.SEGMENTER, "segmenter_model")
        if style.source_id != segmenter.source_id:
            raise _refusal("segmenter_model", "was trained on another source than the style model")
        if style.config["pixel_size_factor"] != segmenter.config["pixel_size_factor"]:
            raise _refusal("segmenter_model", "works at another pixel size than the style model")
        assert style.target_id is not None
        given = request.config.model_fields_set if request.config else set()
        for name in sorted(given & {"style", "segmenter", "pretrain", "pixel_size_factor"}):
            raise _refusal(f"config.{name}", "comes from the trained models here; leave it out")
        inherited = {
            "style": style.config["style"],
            "segmenter": segmenter.config["segmenter"],
            "pretrain": segmenter.config["pretrain"],
            "pixel_size_factor": style.config["pixel_size_factor"],
        }
        config = self._config(request.preset, request.config, inherited)
        self._check_pair(style.source_id, style.target_id, config)
        self._labelled_source(style.source_id)
        job = Job(
            kind=JobKind.STYLEFILTER,
            source_id=style.source_id,
            target_id=style.target_id,
            style_model_id=style.id,
            segmenter_model_id=segmenter.id,
        )
        return self._submit(job, config)

    def evaluate(self, request: EvaluateRequest) -> JobRead:
        model = self._model(request.model, None, "model")
        if model.kind == ModelKind.STYLE:
            raise _refusal("model", "is a style model: it segments nothing")
        dataset = self._dataset(request.dataset, "dataset")
        _check_classes(dataset, model.class_names, "dataset")
        _check_masks(dataset, request.split, "dataset")
        self._check_scale(dataset, self._working_nm(model), "dataset")
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
        return self._submit(job, StyleFilterConfig.model_validate(config))

    def _style_for(self, request: EvaluateRequest, model: TrainedModel) -> UUID | None:
        if not request.stylise:
            return None
        if request.style_model is not None:
            style = self._model(request.style_model, ModelKind.STYLE, "style_model")
            ours, needed = self._working_nm(style), self._working_nm(model)
            if not math.isclose(ours, needed):
                message = f"works at {ours:g} nm per pixel, the model at {needed:g}"
                raise _refusal("style_model", message)
            return style.id
        if model.style_model_id is None:
            message = "name one: the model was not adapted with any; or set stylise to false"
            raise _refusal("style_model", message)
        return model.style_model_id

    def _config(
        self,
        name: PresetName,
        given: StyleFilterConfig | None,
        inherited: dict[str, Any] | None = None,
    ) -> StyleFilterConfig:
        base = preset(name).model_dump() | {"device": self._settings.device} | (inherited or {})
        overrides = {} if given is None else given.model_dump(exclude_unset=True)
        for stage, value in overrides.items():
            if isinstance(value, dict):
                overrides[stage] = _lengths_in_epochs(value)
        try:
            return StyleFilterConfig.model_validate(_merged(base, overrides))
        except ValidationError as error:
            raise invalid_fields(error.errors(), "body.config") from error

    def _submit(self, job: Job, config: StyleFilterConfig) -> JobRead:
        job.config = config.model_dump()
        job.announce_at = now_plus(self._settings.announce_again_seconds)
        self._session.add(job)
        self._session.commit()
        self._queue.announce(job.id)
        only_read(self._session)
        return get(self._session, job.id)

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
            raise _refusal(where, f"is a model of kind {model.kind}, not {kind}")
        return model

    def _working_nm(self, model: TrainedModel) -> float:
        """Nanometres per pixel of the images that a model sees."""
        source = self._session.get_one(Dataset, model.source_id)
        return source.pixel_size_nm * float(model.config["pixel_size_factor"])

    def _labelled_source(self, source_id: UUID) -> Dataset:
        source = self._dataset(source_id, "source")
        _check_masks(source, "train", "source")
        return source

    def _check_pair(self, source_id: UUID, target_id: UUID, config: StyleFilterConfig) -> None:
        source = self._dataset(source_id, "source")
        target = self._dataset(target_id, "target")
        _check_classes(target, source.class_names, "target")
        working_nm = source.pixel_size_nm * config.pixel_size_factor
        for where, dataset in (("source", source), ("target", target)):
            if not any(section["split"] == "train" for section in dataset.sections):
                raise _refusal(where, "has no section in the train split")
            self._check_scale(dataset, working_nm, where)

    def _check_scale(self, dataset: Dataset, working_nm: float, where: str) -> None:
        for section in dataset.sections:
            native = section["height"], section["width"]
            height, width = working_shape(native, dataset.pixel_size_nm, working_nm)
            if height * width > self._settings.max_section_pixels:
                raise _refusal(
                    where,
                    f"has pixels of {dataset.pixel_size_nm} nm, the job works at {working_nm:g}: "
                    f"section {section['name']!r} would be resampled to {height} x {width} px",
                )


def list_jobs(
    session: Session, limit: int, cursor: str | None, state: JobState | None
) -> Page[JobRead]:
    """Jobs, newest first."""
    query = select(Job)
    if state is not None:
        query = query.where(Job.state == state)
    rows, following = newest_first(session, query, limit, cursor)
    return Page(items=_read(session, rows), next=following)


def get(session: Session, job_id: UUID) -> JobRead:
    return _read(session, [_row(session, job_id)])[0]


def metrics(session: Session, job_id: UUID, stage: str | None, name: str | None) -> MetricsRead:
    """All series of a job, or those of a stage or a name."""
    _row(session, job_id)
    query = select(MetricPoint).where(MetricPoint.job_id == job_id)
    if stage is not None:
        query = query.where(MetricPoint.stage == stage)
    if name is not None:
        query = query.where(MetricPoint.name == name)
    points = session.scalars(query.order_by(MetricPoint.stage, MetricPoint.name, MetricPoint.step))
    series = []
    for (of_stage, of_name), group in groupby(points, lambda point: (point.stage, point.name)):
        listed = list(group)
        series.append(
            Series(
                stage=of_stage,
                name=of_name,
                steps=[point.step for point in listed],
                values=[point.value for point in listed],
            )
        )
    return MetricsRead(series=series)


def cancel(session: Session, job_id: UUID) -> JobRead:
    """Cancel a queued job at once; ask the worker of a running one to stop.

    One conditional UPDATE: a job may be claimed or given back at the same moment.
    """
    queued = Job.state == JobState.QUEUED
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state.in_(UNFINISHED))
        .values(
            state=case((queued, JobState.CANCELLED.value), else_=JobState.CANCELLING.value),
            finished_at=case((queued, now_plus())),
        )
    )
    changed = session.scalar(statement.returning(Job.id))
    session.commit()
    only_read(session)
    if changed is None:
        raise Conflict(f"job {job_id} has ended already: it is {_row(session, job_id).state}")
    return get(session, job_id)


def _row(session: Session, job_id: UUID) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def _read(session: Session, jobs: Sequence[Job]) -> list[JobRead]:
    ids = [job.id for job in jobs]
    stages: dict[UUID, list[StageRead]] = {job_id: [] for job_id in ids}
    query = select(JobStage).where(JobStage.job_id.in_(ids)).order_by(JobStage.position)
    for stage in session.scalars(query):
        stages[stage.job_id].append(StageRead.model_validate(stage))
    models: dict[UUID, list[UUID]] = {job_id: [] for job_id in ids}
    made = select(TrainedModel.job_id, TrainedModel.id).where(TrainedModel.job_id.in_(ids))
    for job_id, model_id in session.execute(made.order_by(TrainedModel.created_at)):
        models[job_id].append(model_id)
    return [_job(job, stages[job.id], models[job.id]) for job in jobs]


def _job(job: Job, stages: list[StageRead], models: list[UUID]) -> JobRead:
    eta = None
    if job.state in UNFINISHED and job.steps_per_second:
        eta = (job.total - job.step) / job.steps_per_second
    error = None
    if job.error_code is not None:
        error = JobError(
            code=job.error_code,
            message=job.error_message or "",
            traceback=job.error_traceback,
        )
    return JobRead(
        id=job.id,
        kind=JobKind(job.kind),
        state=JobState(job.state),
        stage=job.stage,
        step=job.step,
        total=job.total,
        steps_per_second=job.steps_per_second,
        eta_seconds=eta,
        stages=stages,
        error=error,
        source=job.source_id,
        target=job.target_id,
        models=models,
        result=None if job.result is None else JobResult.model_validate(job.result),
        config=StyleFilterConfig.model_validate(job.config),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _merged(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in overrides.items():
        old = base.get(name)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[name] = _merged(old, value) if both and old is not None else value
    return merged


def _lengths_in_epochs(given: dict[str, Any]) -> dict[str, Any]:
    """A length given in epochs takes away the steps of the preset; given steps stay."""
    cleared = {steps: None for epochs, steps in _REPLACED_BY.items() if epochs in given}
    return cleared | given


def _refusal(field: str, message: str) -> Invalid:
    return Invalid(f"{field} {message}", [ProblemItem(where=f"body.{field}", message=message)])


def _check_classes(dataset: Dataset, class_names: Sequence[str], where: str) -> None:
    if list(dataset.class_names) != list(class_names):
        raise _refusal(
            where,
            f"has the classes {', '.join(dataset.class_names)}; needed, in this order: "
            f"{', '.join(class_names)}",
        )


def _check_masks(dataset: Dataset, split: str, where: str) -> None:
    if not any(s["split"] == split and s["has_mask"] for s in dataset.sections):
        raise _refusal(where, f"has no section with a mask in the {split} split")
