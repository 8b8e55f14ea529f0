"""The inputs of each kind of job, read from its row and its datasets."""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from app.datasets.domains import DatasetMissing, load_domain
from app.jobs.preflight import fold_of
from app.storage import Storage
from app.tables import Dataset, Job, JobKind, TrainedModel
from models.choice.probed import ProbePlan
from models.config.stylefilter import StyleFilterConfig
from models.data.class_map import ClassMap, mapped
from models.data.domain import Domain
from models.data.points_of_masks import points_of_masks
from models.data.splits import SectionLists
from models.data.tiles import labels_of_some, relabelled
from models.table1.methods import METHODS, Method
from models.table1.plan import BenchmarkPart


@dataclass(frozen=True)
class _JobInputs:
    job: Job
    config: StyleFilterConfig


@dataclass(frozen=True)
class PretrainInputs(_JobInputs):
    """A job that trains the U-Net on the source."""

    source: Domain


@dataclass(frozen=True)
class _PairInputs(_JobInputs):
    source: Domain
    target: Domain


@dataclass(frozen=True)
class AdaptInputs(_PairInputs):
    """A job that runs the whole of StyleFilter."""


@dataclass(frozen=True)
class TrainStyleInputs(_PairInputs):
    """A job that trains CUT."""


@dataclass(frozen=True)
class StyleFilterInputs(_PairInputs):
    """A job that adapts a given segmenter by a given style model; both are folders."""

    style: Path
    segmenter: Path


@dataclass(frozen=True)
class PartInputs(_PairInputs):
    """A benchmark part that trains a method and scores its rows."""

    part: BenchmarkPart
    method: Method


@dataclass(frozen=True)
class ReportInputs(_PairInputs):
    """A benchmark, whose own work is the report of its parts."""


@dataclass(frozen=True)
class EvaluateInputs(_JobInputs):
    """A job that scores a given segmenter, on images stylised by the model in ``style``, if any."""

    target: Domain
    segmenter: Path
    style: Path | None


@dataclass(frozen=True)
class ProbedInputs:
    """A model that a probe asks: its row and folder, its source if it is there, and the target."""

    model: TrainedModel
    folder: Path
    source: Domain | None
    target: Domain


@dataclass(frozen=True)
class ProbeInputs(_JobInputs):
    """A job that asks trained models about a target."""

    plan: ProbePlan
    models: tuple[ProbedInputs, ...]


TrainingInputs = PretrainInputs | AdaptInputs | TrainStyleInputs | StyleFilterInputs | PartInputs

AskingInputs = EvaluateInputs | ProbeInputs
"""The jobs that train nothing."""

Inputs = TrainingInputs | AskingInputs | ReportInputs


def read_inputs(session: Session, storage: Storage, job: Job) -> Inputs:
    """Read the inputs of a job.

    Raises:
        DatasetMissing: a dataset was deleted.
        ConfigUnusable: this version cannot run the stored config.
    """
    read = _Reader(session, storage, job)
    config = read.config
    match JobKind(job.kind):
        case JobKind.ADAPT:
            return AdaptInputs(job, config, read.source(), read.target())
        case JobKind.TRAIN_STYLE:
            return TrainStyleInputs(job, config, read.source(), read.target())
        case JobKind.PRETRAIN:
            return PretrainInputs(job, config, read.source())
        case JobKind.STYLEFILTER:
            style, segmenter = read.model(job.style_model_id), read.model(job.segmenter_model_id)
            return StyleFilterInputs(job, config, read.source(), read.target(), style, segmenter)
        case JobKind.EVALUATE:
            # The source may have been deleted since the segmenter was trained.
            segmenter = read.model(job.segmenter_model_id)
            stylise = read.model(job.style_model_id) if job.stylise else None
            return EvaluateInputs(job, config, read.target(), segmenter, stylise)
        case JobKind.METHOD:
            return read.part()
        case JobKind.BENCHMARK:
            return ReportInputs(job, config, read.source(), read.target())
        case JobKind.PROBE:
            plan = ProbePlan.model_validate(job.plan)
            return ProbeInputs(job, config, plan, tuple(read.probed(m) for m in plan.models))
        case JobKind.REGISTER:
            raise AssertionError("a registration has a process of its own")


class _Reader:
    """A reader of the datasets and models of one job."""

    def __init__(self, session: Session, storage: Storage, job: Job) -> None:
        self._session, self._storage, self._job = session, storage, job
        self.config = job.usable_config()
        self._fold = fold_of(job)  # a benchmark's is the first one, which its picture shows

    def part(self) -> PartInputs:
        """Return the inputs of a benchmark's part, whose budget of masks replaces the config's."""
        part, config = BenchmarkPart.model_validate(self._job.plan), self.config
        assert part.method is not None
        if part.budget is not None:
            config = config.changed({"rounds": {"masked_sections": part.budget.num_masks}})
        method = METHODS[part.method]
        return PartInputs(self._job, config, self.source(), self.target(), part, method)

    def source(self) -> Domain:
        return self._domain(self._job.source_id, None if self._fold is None else self._fold.source)

    def target(self) -> Domain:
        """Return the target in the classes of the job.

        Its labels are read off its masks if the benchmark asks for that.
        """
        lists = None if self._fold is None else self._fold.target
        target = self._domain(self._job.target_id, lists)
        meanings = self._job.target_classes
        target = mapped(
            target, ClassMap.between(target.info.class_names, self._classes(), meanings)
        )
        if self._job.parent_id is None:
            return target
        part = BenchmarkPart.model_validate(self._job.plan)
        if part.tile_px is not None:
            target = relabelled(target, part.tile_px)
        if part.budget is not None and part.budget.num_points:
            target = points_of_masks(target, part.budget.num_points, self.config.seed)
        # The order of the tiles to label next needs a trained network: the part itself asks it.
        elif part.budget is not None and part.budget.order == "random":
            target = labels_of_some(target, part.budget.num_labels, self.config.seed)
        return target

    def _classes(self) -> tuple[str, ...]:
        """Return the classes of the job: of the segmenter that it scores, or of its source."""
        if self._job.kind == JobKind.EVALUATE:
            return self._session.get_one(TrainedModel, self._job.segmenter_model_id).class_names
        return self._session.get_one(Dataset, self._job.source_id).class_names

    def model(self, model_id: UUID | None) -> Path:
        """Return the folder of a trained model."""
        return self._storage.model(self._session.get_one(TrainedModel, model_id).path)

    def probed(self, model_id: UUID) -> ProbedInputs:
        """Return a model that a probe asks, with the target in its classes and its pixel size."""
        session, storage, target_id = self._session, self._storage, self._job.target_id
        assert target_id is not None
        model = session.get_one(TrainedModel, model_id)
        target = load_domain(session, storage, target_id, working_nm=model.working_nm)
        names, meanings = target.info.class_names, self._job.target_classes
        target = mapped(target, ClassMap.between(names, model.class_names, meanings))
        try:
            source = load_domain(session, storage, model.source_id, working_nm=model.working_nm)
        except DatasetMissing:  # the model is as good without it
            source = None
        return ProbedInputs(model, storage.model(model.path), source, target)

    def _domain(self, dataset_id: UUID | None, lists: SectionLists | None) -> Domain:
        assert dataset_id is not None
        working_nm = None
        # The target is seen at the pixel size of its source, too.
        if self._job.source_id is not None:
            source_nm = self._session.get_one(Dataset, self._job.source_id).pixel_size_nm
            working_nm = self.config.working_nm(source_nm)
        return load_domain(
            self._session, self._storage, dataset_id, working_nm=working_nm, splits=lists
        )


def classes_of(inputs: TrainingInputs | AskingInputs) -> tuple[str, ...]:
    """Return the names of the classes that a job's pictures show."""
    match inputs:
        case ProbeInputs():
            return inputs.models[0].target.info.class_names
        case EvaluateInputs():
            return inputs.target.info.class_names
        case _:
            return inputs.source.info.class_names
