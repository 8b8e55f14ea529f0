"""Estimates the steps, memory and disk of a job from rows of the database, without any image."""

from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.columns import stored_list, stored_object
from app.tables import Dataset, Job, JobKind, ModelKind, TrainedModel
from models.capacity import choosing
from models.capacity import estimate as capacity
from models.capacity.estimate import Estimate, Extent
from models.config.stylefilter import StyleFilterConfig
from models.data.sections import Section
from models.data.splits import SectionLists, with_splits
from models.table1.methods import METHODS, ROWS
from models.table1.plan import BenchmarkPart, BenchmarkPlan, FoldSections
from models.training.progress import Stage

_STAGES: dict[JobKind, tuple[Stage, ...]] = {
    JobKind.ADAPT: ("pretrain", "style", "stylise", "adapt"),
    JobKind.TRAIN_STYLE: ("style",),
    JobKind.PRETRAIN: ("pretrain",),
    JobKind.STYLEFILTER: ("stylise", "adapt"),
    # The estimate of a part is that of an adaptation: Y-Net and Paul et al. may take more.
    JobKind.METHOD: ("pretrain", "style", "stylise", "adapt"),
    JobKind.BENCHMARK: ("pretrain", "style", "stylise", "adapt"),
}

_FIRST_IS_KNOWN = (JobKind.ADAPT, JobKind.TRAIN_STYLE, JobKind.PRETRAIN, JobKind.STYLEFILTER)
"""The kinds of jobs that always begin with the first of their stages."""


def work_of(
    job: Job, config: StyleFilterConfig, target: Extent | None
) -> tuple[StyleFilterConfig, tuple[Stage, ...]]:
    """Return the configuration by which a job that trains is estimated, and its stages.

    ``evaluate`` is among them if the target has test masks, and ``verdict`` whether it has labels
    or not: they may still come.
    """
    kind = JobKind(job.kind)
    config, stages = _as_trained(job, config), _STAGES[kind]
    if "adapt" not in stages:
        return config, stages
    if config.method == "chosen":
        cut = kind == JobKind.BENCHMARK or config.choice.style_from_loss is not None
        style = ("style",) if cut else ()
        adapt = ("stylise", "adapt") if choosing.num_trained(config) else ("stylise",)
        stages = ("pretrain", *style, "verdict", *adapt)
    if target is not None and target.count("test", masked=True):
        stages = (*stages, "evaluate")
    by_paper = config.method == "stylefilter" and kind in (JobKind.ADAPT, JobKind.STYLEFILTER)
    return config, (*stages, "verdict") if by_paper else stages


def _as_trained(job: Job, config: StyleFilterConfig) -> StyleFilterConfig:
    """Return the configuration with the method that takes most, of a benchmark or its part."""
    if job.plan is None:
        return config
    if job.kind == JobKind.BENCHMARK:
        methods = [ROWS[row].method for row in BenchmarkPlan.model_validate(job.plan).rows]
    else:
        name = BenchmarkPart.model_validate(job.plan).method
        methods = [] if name is None else [METHODS[name]]
    if any(method.chooses for method in methods):
        return config.changed({"method": "chosen"})
    if any(method.in_rounds for method in methods):
        one = {"max_trained": 1, "views": [], "pixel_factors": [], "target_statistics": False}
        one |= {"ensemble": 1, "style_from_loss": None, "retrain": False}
        return config.changed({"method": "chosen", "choice": one})
    return config


def estimate(
    session: Session, job: Job, config: StyleFilterConfig, *, num_processes: int
) -> Estimate:
    """Return the steps, memory and disk that a job which trains takes."""
    source = session.get_one(Dataset, job.source_id)
    working_nm = config.working_nm(source.pixel_size_nm)
    target, fold = None, fold_of(job)
    if job.target_id is not None:
        lists = None if fold is None else fold.target
        target = _extent(session.get_one(Dataset, job.target_id), working_nm, lists)
        # Of whatever classes it has, networks see it with those of the source.
        target = replace(target, num_classes=len(source.class_names))
    config, stages = work_of(job, config, target)
    return capacity.estimate(
        config,
        stages,
        _extent(source, working_nm, None if fold is None else fold.source),
        target,
        num_processes=num_processes,
    )


def fold_of(job: Job) -> FoldSections | None:
    """Return the fold of a benchmark part, the first fold of a benchmark, or else None."""
    if job.plan is None or job.kind == JobKind.PROBE:
        return None
    if job.kind == JobKind.BENCHMARK:
        return BenchmarkPlan.model_validate(job.plan).folds[0]
    return BenchmarkPart.model_validate(job.plan).sections


def first_stage(
    session: Session, job: Job, config: StyleFilterConfig, *, num_processes: int
) -> tuple[Stage, int] | None:
    """Return the first stage of a job and its steps; None if only the trainer can tell them."""
    if job.kind == JobKind.EVALUATE and job.target_id is not None:
        target = session.get_one(Dataset, job.target_id)
        scored = [s for s in target.sections if s.split == job.split and s.has_mask]
        return "evaluate", len(scored)
    if job.kind not in _FIRST_IS_KNOWN:
        return None
    first = estimate(session, job, config, num_processes=num_processes).stages[0]
    if job.reuse and _may_be_reused(session, job, first.stage):
        return None
    return first.stage, first.steps


def _may_be_reused(session: Session, job: Job, stage: Stage) -> bool:
    """Return True if some model was trained with the job's numbers for this stage.

    The model may have been trained on other data. Only the trainer compares the data too, and then
    takes the model over or trains another.
    """
    kind = {"style": ModelKind.STYLE, "pretrain": ModelKind.SEGMENTER}.get(stage)
    configs = session.scalars(select(TrainedModel.config).where(TrainedModel.kind == kind))
    own = stored_object(job.config).get(stage)
    return any(stored_object(config).get(stage) == own for config in configs)


def classes_to_learn(source: Dataset, fold: FoldSections | None) -> list[str]:
    """Return the classes in the training masks."""
    sections = _sections(source, None if fold is None else fold.source)
    counts = stored_list(source.section_pixels)
    found: set[int] = set()
    for section, pixels in zip(sections, counts, strict=False):
        if section.split == "train":
            found |= {index for index, count in enumerate(stored_list(pixels)) if count}
    return [source.class_names[index] for index in sorted(found)]


def _extent(dataset: Dataset, working_nm: float, lists: SectionLists | None) -> Extent:
    sections = _sections(dataset, lists)
    return Extent(len(dataset.class_names), dataset.pixel_size_nm, working_nm, sections)


def _sections(dataset: Dataset, lists: SectionLists | None) -> tuple[Section, ...]:
    """Return the sections in their registered splits, or in those of a benchmark's fold."""
    return dataset.sections if lists is None else with_splits(dataset.sections, lists)
