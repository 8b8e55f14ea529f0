"""Makes a job of a request for a probe: finds the models that it can ask."""

from collections.abc import Iterator, Sequence
from uuid import UUID

from sqlalchemy import select

from app.errors import Invalid, refusal
from app.jobs import checks
from app.jobs.checks import Context
from app.jobs.request_schemas import MOST_PROBED, ProbeRequest
from app.storage import Storage
from app.tables import ADAPTED, Dataset, Job, JobKind, ModelKind, TrainedModel
from models.choice.probed import LeftOut, ProbePlan
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig

SEGMENTERS = (ModelKind.SEGMENTER, *ADAPTED)

_WHERE = "models"


def draft_probe(context: Context, request: ProbeRequest) -> tuple[Job, StyleFilterConfig]:
    """Check that the target can be probed, and choose the models.

    Raises:
        Invalid: the target has no training section, or no model suits it.
        NotFound: there is no such dataset or model.
    """
    if request.models is not None and request.sources is not None:
        raise refusal("sources", "give models or sources, not both: models are named one by one")
    target = checks.held_dataset(context, request.target, "target")
    if not any(section.split == "train" for section in target.sections):
        raise refusal(
            "target", "the target has no section in its train split: register it with other splits"
        )
    plan = _plan(context, request, target)
    if not plan.models:
        raise refusal("target", _nothing(plan.left_out))
    job = Job(
        kind=JobKind.PROBE,
        target_id=target.id,
        target_classes=request.target_classes,
        plan=plan.model_dump(mode="json"),
    )
    return job, preset("quick").changed({"device": context.settings.device})


def _plan(context: Context, request: ProbeRequest, target: Dataset) -> ProbePlan:
    chosen, left_out = list[UUID](), list[LeftOut]()
    for model in _wanted(context, request):
        problem = _problem(context, request, target, model)
        if problem is None and len(chosen) == MOST_PROBED:
            problem = f"a probe asks {MOST_PROBED} models at most: name this one in models"
        if problem is None:
            chosen.append(model.id)
        else:
            left_out.append(LeftOut(model=model.id, reason=problem))
    return ProbePlan(
        models=tuple(chosen), left_out=tuple(left_out), max_sections=request.max_sections
    )


def _wanted(context: Context, request: ProbeRequest) -> Sequence[TrainedModel]:
    """Return the models that are named, or the newest of each kind, source and target."""
    if request.models is not None:
        named = enumerate(dict.fromkeys(request.models))
        return [checks.trained_model(context, m, f"{_WHERE}.{n}", *SEGMENTERS) for n, m in named]
    query = select(TrainedModel).where(TrainedModel.kind.in_(SEGMENTERS))
    if request.sources is not None:
        for number, source in enumerate(request.sources):
            checks.held_dataset(context, source, f"sources.{number}")
        query = query.where(TrainedModel.source_id.in_(request.sources))
    newest: dict[tuple[str, UUID, UUID | None], TrainedModel] = {}
    for model in context.session.scalars(
        query.order_by(TrainedModel.created_at.desc(), TrainedModel.id)
    ):
        newest.setdefault((model.kind, model.source_id, model.target_id), model)
    # Those of a source alone come first: they are what an adaptation starts from.
    return sorted(newest.values(), key=lambda model: SEGMENTERS.index(ModelKind(model.kind)))


def _problem(
    context: Context, request: ProbeRequest, target: Dataset, model: TrainedModel
) -> str | None:
    """Return the reason why a model cannot be asked; a model that was named is refused instead."""
    named = request.models is not None
    where = _WHERE if named else "target"
    try:
        checks.check_classes(target, model.class_names, where, request.target_classes)
        checks.check_scale(context, target, model.working_nm, "target")
        checks.config_of(model, where)
    except Invalid as error:
        if named:
            raise
        return error.detail
    if not Storage(context.settings.data_folder).model(model.path).is_dir():
        problem = f"the files of model {model.id} are gone: train it anew"
    elif not named and model.source_id == target.id:
        problem = "it was trained on masks of this dataset: name it in models to ask it"
    else:
        return None
    if named:
        raise refusal(where, problem)
    return problem


def _nothing(left_out: Sequence[LeftOut]) -> str:
    train = (
        "train a segmenter of a source with the same classes by POST /jobs/pretrain; an adaptation "
        "takes it over afterwards"
    )
    if not left_out:
        return f"there is no trained model to ask: {train}"
    return f"no trained model suits the target ({_first(left_out)}): {train}"


def _first(left_out: Sequence[LeftOut], most: int = 3) -> str:
    def told() -> Iterator[str]:
        yield from (f"model {each.model}: {each.reason}" for each in left_out[:most])
        if len(left_out) > most:
            yield f"and {len(left_out) - most} more"

    return "; ".join(told())
