"""Read the results of a benchmark's jobs: database rows, files, and the stages they trained."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs import curves
from app.jobs.curves import MetricsQuery
from app.jobs.result import JobResult
from app.storage import Storage
from app.tables import ADAPTED, Dataset, Job, JobKind, JobStage, JobState, ModelKind
from models.table1.methods import METHODS, RowName, needs_style
from models.table1.plan import BenchmarkPart, BenchmarkPlan
from models.table1.results import RowScores
from worker.tester import PICTURES, SCORES, SCORES_TYPE

SHARED = {JobKind.PRETRAIN: "pretrain", JobKind.TRAIN_STYLE: "style"}
"""The kinds of job whose stage the rows of a fold share, and the stage of each."""

_KINDS = {"pretrain": (ModelKind.SEGMENTER,), "style": (ModelKind.STYLE,), "adapt": ADAPTED}
"""The kinds of trained model that a stage makes."""


@dataclass(frozen=True)
class Part:
    """A job of the benchmark, what it runs, and the folder of its last attempt."""

    job: Job
    plan: BenchmarkPart
    folder: Path
    ended: JobResult | None = None
    """The result of a job that has just ended, and whose row does not hold it yet."""

    @property
    def succeeded(self) -> bool:
        return self.job.state == JobState.SUCCEEDED

    @property
    def result(self) -> JobResult:
        return self.ended or JobResult.model_validate(self.job.result or {})

    @property
    def seed(self) -> int:
        return self.job.usable_config().seed

    @property
    def place(self) -> tuple[int, int | None]:
        """The fold and the seed; parts of the same place share stages."""
        return self.plan.fold, self.plan.seed

    @property
    def stage(self) -> str:
        """The stage that trains the part's own network."""
        if self.plan.method is None:
            return SHARED[JobKind(self.job.kind)]
        return "pretrain" if METHODS[self.plan.method].masks_of == "target" else "adapt"

    @property
    def scores(self) -> list[RowScores]:
        return SCORES_TYPE.validate_json((self.folder / SCORES).read_bytes())

    @property
    def pictures(self) -> dict[RowName, Path]:
        """The files of each row's prediction for the section that the report shows, if any."""
        return {path.stem: path for path in sorted((self.folder / PICTURES).glob("*.png"))}


class Parts:
    """The jobs of one benchmark, and the stages that each trained or took from an earlier job.

    ``ended`` holds the results of jobs that have just ended, and whose rows do not hold them yet.
    """

    def __init__(
        self,
        session: Session,
        storage: Storage,
        benchmark: Job,
        ended: Mapping[UUID, JobResult] | None = None,
    ) -> None:
        self._session = session
        self.benchmark = benchmark
        self.plan = BenchmarkPlan.model_validate(benchmark.plan)
        query = select(Job).where(Job.parent_id == benchmark.id).order_by(Job.created_at, Job.id)
        self._all = [
            Part(
                job,
                BenchmarkPart.model_validate(job.plan),
                storage.attempt(job.id, job.attempt),
                (ended or {}).get(job.id),
            )
            for job in session.scalars(query)
        ]

    def __iter__(self) -> Iterator[Part]:
        return iter(self._all)

    def in_table(self, part: Part) -> bool:
        """Tell whether a part has the labels of the table, and no others."""
        return part.plan.tile_px == self.plan.tile_px and part.plan.budget is None

    def data(self) -> tuple[Dataset, Dataset]:
        """Return the rows of the source and of the target."""
        ids = self.benchmark.source_id, self.benchmark.target_id
        source, target = (self._session.get_one(Dataset, each) for each in ids)
        return source, target

    def shared_by(self, part: Part, rows: Sequence[RowName]) -> list[Part]:
        """Return the other parts whose networks ``rows`` of a part use."""
        method = part.plan.method
        stages = set()
        # A segmenter that learns from the target's masks uses none of the source's.
        if method is None or METHODS[method].masks_of == "source":
            stages.add("pretrain")
        if method is not None and needs_style(method, rows):
            stages.add("style")
        return [
            other
            for other in self
            if other is not part
            and other.plan.method is None
            and other.place == part.place
            and other.stage in stages
        ]

    def users_of(self, shared: Part) -> tuple[RowName, ...]:
        """Return the rows that use a shared part's network, in the order of their parts."""
        rows = (
            row
            for part in self
            if part.plan.method is not None and part.place == shared.place
            for row in part.plan.rows
            if shared in self.shared_by(part, [row])
        )
        return tuple(dict.fromkeys(rows))

    def seconds(self, part: Part) -> float:
        """Return the training time of a part's stage, in the job that trained it."""
        return self._stages(self._origin(part)).get(part.stage, 0.0)

    def own_seconds(self, part: Part) -> Mapping[str, float]:
        """Return the seconds of each stage that the part's job itself ran."""
        return self._stages(part.job.id)

    def peak_memory_bytes(self, part: Part) -> int:
        """Return the most memory of the job that trained a part's stage; 0 if that is unknown."""
        if self._origin(part) == part.job.id:
            return part.result.peak_memory_bytes or 0
        origin = self._session.get(Job, self._origin(part))
        result = None if origin is None else origin.result
        return JobResult.model_validate(result or {}).peak_memory_bytes or 0

    def by_step(self, part: Part, name: str, points: int) -> dict[int, float]:
        """Read a series of a part's stage, thinned to ``points``, as values by step."""
        query = MetricsQuery(points=points)
        series = curves.read(self._session, self._origin(part), part.stage, name, query)
        return dict(zip(series.steps, series.values, strict=True))

    def _origin(self, part: Part) -> UUID:
        """Return the job that trained a part's stage: its own, or an earlier one that it reused."""
        reused = (model for model in part.result.reused if model.kind in _KINDS[part.stage])
        return next((model.job for model in reused), part.job.id)

    def _stages(self, job_id: UUID) -> dict[str, float]:
        query = select(JobStage.stage, JobStage.seconds).where(JobStage.job_id == job_id)
        return {stage: n for stage, n in self._session.execute(query)}  # noqa: C416 - rows, no pairs
