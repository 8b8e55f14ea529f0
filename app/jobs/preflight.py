"""Estimates the steps, memory and disk of a job from rows of the database, without any image."""

from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.columns import stored_list, stored_object
from app.tables import Dataset, Job, JobKind, ModelKind, TrainedModel
from models.capacity import estimate as capacity
from models.capacity.estimate import Estimate, Extent
from models.config.stylefilter import StyleFilterConfig
from models.data.sections import Section
from models.data.splits import SectionLists, with_splits
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


def stages_of(kind: JobKind, target: Extent | None) -> tuple[Stage, ...]:
    """Return the stages of a job that trains; if the target has test masks, with ``evaluate``."""
    stages = _STAGES[kind]
    scored = "adapt" in stages and target is not None and target.count("test", masked=True)
    return (*stages, "evaluate") if scored else stages


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
    return capacity.estimate(
        config,
        stages_of(JobKind(job.kind), target),
        _extent(source, working_nm, None if fold is None else fold.source),
        target,
        num_processes=num_processes,
    )


def fold_of(job: Job) -> FoldSections | None:
    """Return the fold of a benchmark part, the first fold of a benchmark, or else None."""
    if job.plan is None:
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
