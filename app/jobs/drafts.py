"""Checks requests and makes jobs of them, with a function for each kind of job."""

import json
import math
from dataclasses import dataclass
from uuid import UUID

from pydantic import ValidationError

from app.errors import invalid_fields, refusal
from app.http.pagination import LARGEST_NUMBER
from app.jobs import benchmark_folds, checks, preflight
from app.jobs.checks import Context
from app.jobs.config_changes import too_large
from app.jobs.probe_drafts import SEGMENTERS, draft_probe
from app.jobs.request_schemas import (
    AdaptRequest,
    BenchmarkRequest,
    EvaluateRequest,
    PretrainRequest,
    ProbeRequest,
    StyleFilterRequest,
    TrainStyleRequest,
)
from app.tables import Dataset, Job, JobKind, ModelKind, TrainedModel
from models.capacity.estimate import Estimate
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig
from models.table1.methods import METHODS

TrainingRequest = (
    AdaptRequest | TrainStyleRequest | PretrainRequest | StyleFilterRequest | BenchmarkRequest
)
JobRequest = TrainingRequest | EvaluateRequest | ProbeRequest

_INHERITED = ("style", "segmenter", "pretrain", "pixel_size_factor")
"""The parts of the configuration that the kind `stylefilter` takes from its two models."""


@dataclass(frozen=True)
class Draft:
    """A job that suits its datasets and models, and is not stored yet."""

    job: Job
    config: StyleFilterConfig


@dataclass(frozen=True)
class TrainingDraft(Draft):
    """A job that trains, which also fits into memory and disk."""

    estimate: Estimate
    notes: tuple[str, ...]


def draft(context: Context, request: JobRequest) -> Draft:
    """Check a request and make its job.

    Raises:
        Invalid: names the field of the request that is wrong.
        NotFound: names the field whose dataset or model does not exist.
    """
    if isinstance(request, EvaluateRequest):
        return draft_evaluation(context, request)
    if isinstance(request, ProbeRequest):
        return Draft(*draft_probe(context, request))
    return draft_training(context, request)


def draft_training(context: Context, request: TrainingRequest) -> TrainingDraft:
    """Check a request for a job that trains, and make the job."""
    match request:
        case AdaptRequest():
            return draft_adaptation(context, request)
        case TrainStyleRequest():
            return draft_style(context, request)
        case PretrainRequest():
            return draft_pretraining(context, request)
        case StyleFilterRequest():
            return draft_stylefilter(context, request)
        case BenchmarkRequest():
            return draft_benchmark(context, request)


def draft_adaptation(context: Context, request: AdaptRequest) -> TrainingDraft:
    """Check that source and target suit each other, and that the source has masks."""
    config = _as_its_method_needs(_config(context, request), request)
    source, target = checks.training_pair(
        context, request.source, request.target, config, request.target_classes
    )
    checks.check_masks(source, "train", "source")
    notes = checks.notes_on_pair(source, target, request.target_classes)
    notes += checks.notes_on_labels(context, target, config)
    job = _job(JobKind.ADAPT, request, source, target)
    return _fitting(context, job, config, notes)


def draft_style(context: Context, request: TrainStyleRequest) -> TrainingDraft:
    """Check that source and target suit each other; they need no masks."""
    config = _config(context, request)
    source, target = checks.training_pair(
        context, request.source, request.target, config, request.target_classes
    )
    return _fitting(context, _job(JobKind.TRAIN_STYLE, request, source, target), config)


def draft_pretraining(context: Context, request: PretrainRequest) -> TrainingDraft:
    """Check that the source has masks and fits at its working pixel size."""
    config = _config(context, request)
    source = checks.held_dataset(context, request.source, "source")
    checks.check_masks(source, "train", "source")
    checks.check_scale(context, source, config.working_nm(source.pixel_size_nm), "source")
    notes = checks.notes_on_classes(source)
    return _fitting(context, _job(JobKind.PRETRAIN, request, source), config, notes)


def draft_stylefilter(context: Context, request: StyleFilterRequest) -> TrainingDraft:
    """Check that both models belong to one source and pixel size, and take their config."""
    style = checks.trained_model(context, request.style_model, "style_model", ModelKind.STYLE)
    segmenter = checks.trained_model(
        context, request.segmenter_model, "segmenter_model", ModelKind.SEGMENTER
    )
    config = _config(context, request, _inherited(request, style, segmenter))
    if config.method != "stylefilter":
        raise refusal(
            "config.method",
            f"a job of this kind trains StyleFilter's third step, and config.method is "
            f"{config.method}: set it to stylefilter, or send POST /jobs/adapt",
        )
    assert style.target_id is not None
    source, target = checks.training_pair(
        context, style.source_id, style.target_id, config, request.target_classes
    )
    checks.check_masks(source, "train", "source")
    notes = checks.notes_on_pair(source, target, request.target_classes)
    notes += checks.notes_on_labels(context, target, config)
    job = _job(JobKind.STYLEFILTER, request, source, target)
    job.style_model_id, job.segmenter_model_id = style.id, segmenter.id
    return _fitting(context, job, config, notes)


def draft_benchmark(context: Context, request: BenchmarkRequest) -> TrainingDraft:
    """Check that each fold has the masks and labels that the rows need, and plan the parts."""
    config = _config(context, request)
    if request.seeds:
        config = config.changed({"seed": request.seeds[0]})
    pair = checks.matching_pair(
        context, request.source, request.target, config, request.target_classes
    )
    plan = benchmark_folds.plan(context.session, request, pair, config)
    notes = checks.notes_on_classes(pair[0], plan.folds[0])
    job = _job(JobKind.BENCHMARK, request, *pair)
    job.plan = plan.model_dump(mode="json")
    return _fitting(context, job, config, notes)


def draft_evaluation(context: Context, request: EvaluateRequest) -> Draft:
    """Check that the dataset has masks of the model's classes, and find the style model."""
    model = checks.trained_model(context, request.model, "model", *SEGMENTERS)
    dataset = checks.held_dataset(context, request.dataset, "dataset")
    checks.check_classes(dataset, model.class_names, "dataset", request.target_classes)
    checks.check_masks(dataset, request.split, "dataset")
    checks.check_scale(context, dataset, model.working_nm, "dataset")
    style_id = _style_for(context, request, model)
    job = Job(
        kind=JobKind.EVALUATE,
        source_id=model.source_id,
        target_id=dataset.id,
        style_model_id=style_id,
        segmenter_model_id=model.id,
        stylise=style_id is not None,
        split=request.split,
        target_classes=request.target_classes,
    )
    device = {"device": context.settings.device}
    return Draft(job, checks.config_of(model, "model").changed(device))


def _config(
    context: Context, request: TrainingRequest, inherited: dict[str, object] | None = None
) -> StyleFilterConfig:
    """Return the preset, changed by the fields of the models and then by those of the request."""
    fields = {} if request.config is None else request.config.root
    device = {"device": context.settings.device}
    try:
        config = preset(request.preset).changed({**device, **(inherited or {}), **fields})
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise invalid_fields(errors, "body.config") from error
    if not isinstance(request, AdaptRequest | StyleFilterRequest):
        if "method" in fields and config.method != "stylefilter":
            raise refusal(
                "config.method",
                f"a job of this kind does not adapt by the method {config.method}: leave "
                "config.method out, and send POST /jobs/adapt or name the rows of a benchmark",
            )
        config = config.changed({"method": "stylefilter"})  # a preset may name another one
    for name in too_large(config):
        raise refusal(f"config.{name}", f"{name} is too large: it is at most {LARGEST_NUMBER}")
    return config


def _as_its_method_needs(config: StyleFilterConfig, request: AdaptRequest) -> StyleFilterConfig:
    """Return the configuration with the fields that make its method what it is."""
    if config.method == "stylefilter":
        return config
    needed = METHODS[config.method]
    changed = needed.changed(config)
    given = {} if request.config is None else request.config.root
    for section, fields in needed.changes.items():
        asked = given.get(section)
        for name, value in fields.items():
            if isinstance(asked, dict) and asked.get(name, value) != value:
                raise refusal(
                    f"config.{section}.{name}",
                    f"method {config.method} needs {section}.{name} {json.dumps(value)}: leave it "
                    "out, or set config.method to stylefilter",
                )
    return changed


def _job(
    kind: JobKind, request: TrainingRequest, source: Dataset, target: Dataset | None = None
) -> Job:
    target_id = None if target is None else target.id
    job = Job(kind=kind, reuse=request.reuse, source_id=source.id, target_id=target_id)
    if not isinstance(request, PretrainRequest):
        job.target_classes = request.target_classes
    return job


def _fitting(
    context: Context, job: Job, config: StyleFilterConfig, notes: tuple[str, ...] = ()
) -> TrainingDraft:
    """Estimate the steps, memory and disk of a job, and refuse a job that cannot fit."""
    num_processes = context.settings.processes
    estimate = preflight.estimate(context.session, job, config, num_processes=num_processes)
    checks.check_room(context, estimate, config)
    return TrainingDraft(job, config, estimate, notes)


def _inherited(
    request: StyleFilterRequest, style: TrainedModel, segmenter: TrainedModel
) -> dict[str, object]:
    """Return the parts of the configuration that come from the two models."""
    if style.source_id != segmenter.source_id:
        raise refusal(
            "segmenter_model",
            f"the segmenter was trained on source {segmenter.source_id} and the style model on "
            f"source {style.source_id}: name two models of one source",
        )
    _check_same_scale(style, segmenter, "segmenter_model")
    given = set() if request.config is None else request.config.root.keys()
    for name in _INHERITED:
        if name in given:
            raise refusal(
                f"config.{name}",
                f"a job of this kind takes config.{name} from its trained models: leave it out",
            )
    of_style = checks.config_of(style, "style_model")
    of_segmenter = checks.config_of(segmenter, "segmenter_model")
    return {
        "style": of_style.style,
        "segmenter": of_segmenter.segmenter,
        "pretrain": of_segmenter.pretrain,
        "pixel_size_factor": of_style.pixel_size_factor,
    }


def _style_for(context: Context, request: EvaluateRequest, model: TrainedModel) -> UUID | None:
    """Return the style model that stylises images before ``model`` segments them, if any does."""
    known = request.style_model or model.style_model_id
    if request.stylise is False or (request.stylise is None and known is None):
        return None
    if request.style_model is not None:
        where = "style_model"
        style = checks.trained_model(context, request.style_model, where, ModelKind.STYLE)
        _check_same_scale(style, model, where)
        return style.id
    if model.style_model_id is None:
        raise refusal(
            "style_model",
            f"model {model.id} was not adapted with a style model: name one, or set stylise to "
            "false",
        )
    return model.style_model_id


def _check_same_scale(style: TrainedModel, segmenter: TrainedModel, where: str) -> None:
    if not math.isclose(style.working_nm, segmenter.working_nm):
        raise refusal(
            where,
            f"the style model works at {style.working_nm:.9g} nm per pixel and the segmenter at "
            f"{segmenter.working_nm:.9g}: name two models of one pixel size",
        )
