"""The end of a benchmark: from what its parts left to the report."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs import curves
from app.jobs.curves import MetricsQuery
from app.jobs.schemas import JobResult
from app.jobs.transitions import DEPENDENCY_FAILED
from app.storage import Storage
from app.tables import Job, JobKind, JobStage, JobState
from models.config import StyleFilterConfig
from models.data.domain import Domain, normalise
from models.metadata import METHOD_VERSION
from models.table1.methods import METHODS, ROWS, MethodName, RowName, needs_style
from models.table1.plan import BenchmarkPart, BenchmarkPlan
from models.table1.results import (
    BenchmarkReport,
    Curve,
    FailedRow,
    RowResult,
    SharedStage,
    StyleChoice,
    StyleScore,
)
from models.table1.statistics import differences, label_values, tabulate
from worker import report
from worker.report.figure import Panel, qualitative
from worker.report.sentences import of_row
from worker.tester import PICTURES, SCORES, SCORES_TYPE, NothingMeasured, pictured

FOLDS = "folds.json"

_SHARED = {"pretrain": JobKind.PRETRAIN, "style": JobKind.TRAIN_STYLE}
"""Stages that rows of a fold share, and the jobs that train them."""

_CURVE = MetricsQuery(points=200)
_SCORES = MetricsQuery(points=10_000)
"""Every generator that was scored: a rule chooses among all of them."""


@dataclass(frozen=True)
class _Part:
    """A job of the benchmark, what it runs, and the seconds of the stages it trained itself."""

    job: Job
    plan: BenchmarkPart
    seconds: Mapping[str, float]


class Collection:
    """What the jobs of a benchmark left."""

    def __init__(self, session: Session, storage: Storage, benchmark: Job) -> None:
        self._session, self._storage, self._benchmark = session, storage, benchmark
        self._plan = BenchmarkPlan.model_validate(benchmark.plan)
        jobs = session.scalars(
            select(Job).where(Job.parent_id == benchmark.id).order_by(Job.created_at, Job.id)
        )
        self._parts = [
            _Part(job, BenchmarkPart.model_validate(job.plan), self._seconds(job.id))
            for job in jobs
        ]

    def write(self, folder: Path, source: Domain, target: Domain) -> JobResult:
        """Write the report's files to ``folder``; what the job's row keeps of it."""
        made = self.report(source, target)
        report.write(made, folder, self.figure(target))
        folds = self._plan.published(source.info, target.info)
        (folder / FOLDS).write_text(folds.model_dump_json(indent=1) + "\n")
        notes = [f"{row.title}: {of_row(made, row)}" for row in made.rows]
        if made.failed:
            notes.append(f"Without a result: {len(made.failed)} of the table's results.")
        return JobResult(notes=notes)

    def report(self, source: Domain, target: Domain) -> BenchmarkReport:
        """The whole report; NothingMeasured where no part succeeded."""
        results = list(self._results())
        if not results:
            raise NothingMeasured("none of the benchmark's parts succeeded; see their errors")
        plan, names = self._plan, target.info.class_names
        own = [result for result in results if result.tile_px == plan.tile_px]
        excluded = plan.excluded
        return BenchmarkReport(
            source=source.info.name,
            target=target.info.name,
            class_names=names,
            excluded=excluded,
            preset=plan.preset,
            config=StyleFilterConfig.model_validate(self._benchmark.config),
            folds=len(plan.folds),
            tile_px=plan.tile_px,
            results=tuple(results),
            rows=tuple(
                # Of all of them the same: the table says it once.
                row.model_copy(update={"tile_px": None})
                for row in tabulate(own, names, excluded)
            ),
            differences=differences(own, names, excluded),
            label_values=label_values(results, names, excluded, plan.label_tiles_px),
            curves=tuple(self._curves()),
            styles=tuple(self._styles()),
            shared=tuple(self._shared()),
            failed=tuple(self._failed()),
            notes=tuple(self._notes()),
            seconds=sum(sum(part.seconds.values()) for part in self._parts),
            versions=_versions(),
        )

    def figure(self, target: Domain) -> bytes | None:
        """A test section of the first fold as each row sees it; None where it has no mask."""
        found: dict[RowName, Path] = {}
        for part in self._parts:
            folder = self._folder(part) / PICTURES
            if part.job.state != JobState.SUCCEEDED or part.plan.fold != 0:
                continue
            for path in sorted(folder.glob("*.png")):
                if part.plan.tile_px == self._plan.tile_px:
                    found[path.stem] = path  # named by their rows
        if not found:
            return None
        section = pictured(target)
        image = target.native_image(section)
        panels = [Panel("Image", image=_grey(image, target.info.intensity_window))]
        panels += [
            Panel(ROWS[row].title, classes=np.asarray(Image.open(found[row])))
            for row in ROWS
            if row in found
        ]
        panels.append(Panel("Truth", classes=target.native_mask(section)))
        return qualitative(panels, target.info.class_names)

    def _results(self) -> Iterator[RowResult]:
        for part in self._parts:
            if part.job.state != JobState.SUCCEEDED or part.plan.method is None:
                continue
            own_stage = "pretrain" if METHODS[part.plan.method].masks_of == "target" else "adapt"
            own = part.seconds.get("stylise", 0.0) + self._trained(part, own_stage)
            for scores in SCORES_TYPE.validate_json((self._folder(part) / SCORES).read_bytes()):
                trained = [(part, own_stage)]
                if METHODS[part.plan.method].masks_of == "source":
                    trained += self._stage_of(part.plan.fold, "pretrain")
                if needs_style(part.plan.method, [scores.row]):
                    trained += self._stage_of(part.plan.fold, "style")
                shared = sum(self._trained(*each) for each in trained[1:])
                facts = scores.model_dump()
                facts["peak_memory_bytes"] = max(
                    scores.peak_memory_bytes, *(self._memory(*each) for each in trained)
                )
                yield RowResult(**facts, seconds=own + shared, own_seconds=own)

    def _failed(self) -> Iterator[FailedRow]:
        for part in self._parts:
            if part.job.state == JobState.SUCCEEDED:
                continue
            for row in part.plan.rows:
                yield FailedRow(
                    row=row,
                    fold=part.plan.fold,
                    tile_px=part.plan.tile_px,
                    reason=self._reason(part),
                )

    def _reason(self, part: _Part) -> str:
        """Why there is no result: the shared stage's reason, where the job waited in vain."""
        own = part.job.error_message or f"The job was {part.job.state}."
        if part.job.error_code != DEPENDENCY_FAILED:
            return own
        method, stages = part.plan.method, ["pretrain"]
        if method is not None and needs_style(method, part.plan.rows):
            stages.append("style")
        waited_for = (each for stage in stages for each in self._stage_of(part.plan.fold, stage))
        for shared, stage in waited_for:
            failed = shared.job.state in (JobState.FAILED, JobState.CANCELLED)
            if failed and shared is not part:
                return f"Its stage {stage} failed: {self._reason(shared)}"
        return own

    def _notes(self) -> Iterator[str]:
        """What jobs changed of their config to fit the GPU."""
        for part in self._parts:
            for change in JobResult.model_validate(part.job.result or {}).changed:
                yield f"{part.plan.title}: for want of GPU memory {change}"

    def _shared(self) -> Iterator[SharedStage]:
        kinds = {kind: stage for stage, kind in _SHARED.items()}
        for part in self._parts:
            stage = kinds.get(JobKind(part.job.kind))
            if stage is None or part.job.state != JobState.SUCCEEDED:
                continue
            rows = tuple(
                row
                for other in self._parts
                if other.plan.fold == part.plan.fold
                and other.plan.method is not None
                and METHODS[other.plan.method].masks_of == "source"
                for row in other.plan.rows
                if stage == "pretrain" or needs_style(other.plan.method, [row])
            )
            yield SharedStage(
                stage=stage,
                fold=part.plan.fold,
                seconds=self._trained(part, stage),
                rows=tuple(dict.fromkeys(rows)),
            )

    def _curves(self) -> Iterator[Curve]:
        """Validation DICE of what each part trained, under the row that is tested so."""
        for part in self._parts:
            if part.plan.method is None or part.plan.tile_px != self._plan.tile_px:
                continue
            stage = "pretrain" if METHODS[part.plan.method].masks_of == "target" else "adapt"
            scores = self._by_step(self._origin(part, stage), stage, "dice/mean")
            if scores:
                yield Curve(
                    row=_as_trained(part.plan.method, part.plan.rows),
                    fold=part.plan.fold,
                    stage=stage,
                    name="dice/mean",
                    steps=tuple(scores),
                    values=tuple(scores.values()),
                )

    def _styles(self) -> Iterator[StyleChoice]:
        """How the generators of each fold were scored, where one was chosen."""
        config = StyleFilterConfig.model_validate(self._benchmark.config)
        for part in self._parts:
            if part.job.kind != JobKind.TRAIN_STYLE or config.style.select_on == "last":
                continue
            origin = self._origin(part, "style")
            dice, agreement, both = (
                self._by_step(origin, "style", name, _SCORES)
                for name in ("dice/mean", "label_agreement", "label_score")
            )
            scores = tuple(
                StyleScore(
                    step=step,
                    dice=dice.get(step),
                    label_agreement=agreement.get(step),
                    label_score=both.get(step),
                )
                for step in sorted(dice.keys() | both.keys())
            )
            if scores:
                by = config.style.select_on
                yield StyleChoice(fold=part.plan.fold, selected_by=by, scores=scores)

    def _by_step(
        self, job_id: UUID, stage: str, name: str, query: MetricsQuery = _CURVE
    ) -> dict[int, float]:
        series = curves.read(self._session, job_id, stage, name, query)
        return dict(zip(series.steps, series.values, strict=True))

    def _stage_of(self, fold: int, stage: str) -> list[tuple[_Part, str]]:
        """The part of a fold that trained what its rows share."""
        kind = _SHARED[stage]
        return [(p, stage) for p in self._parts if p.plan.fold == fold and p.job.kind == kind]

    def _memory(self, part: _Part, stage: str) -> int:
        """The most that the job which trained a stage held; 0 where it does not say."""
        origin = self._session.get(Job, self._origin(part, stage))
        result = None if origin is None else origin.result
        return JobResult.model_validate(result or {}).peak_memory_bytes or 0

    def _trained(self, part: _Part, stage: str) -> float:
        """Seconds of a stage, in the job that trained it."""
        return self._seconds(self._origin(part, stage)).get(stage, 0.0)

    def _origin(self, part: _Part, stage: str) -> UUID:
        """The job that trained a stage of a part: itself, or one before it."""
        kinds = {"pretrain": ("segmenter",), "style": ("style",)}.get(
            stage, ("stylefilter", "baseline")
        )
        reused = JobResult.model_validate(part.job.result or {}).reused
        return next((model.job for model in reused if model.kind in kinds), part.job.id)

    def _seconds(self, job_id: UUID) -> dict[str, float]:
        query = select(JobStage.stage, JobStage.seconds).where(JobStage.job_id == job_id)
        return {stage: n for stage, n in self._session.execute(query)}  # noqa: C416 - rows, no pairs

    def _folder(self, part: _Part) -> Path:
        return self._storage.attempt(part.job.id, part.job.attempt)


def _as_trained(method: MethodName, rows: Sequence[RowName]) -> RowName:
    """The row that is tested as training validates: on images rendered alike."""
    styler = METHODS[method].trained_on
    return next((row for row in rows if ROWS[row].tested_on == styler), rows[0])


def _grey(image: NDArray[np.generic], window: tuple[float, float]) -> NDArray[np.uint8]:
    """An image as stored, as 8-bit grey of its intensity window."""
    return (normalise(image, window) * 255).round().astype(np.uint8)


def _versions() -> dict[str, str]:
    names = ("stylefilter-service", "torch", "numpy")
    found = {name: version(name) for name in names}
    return {"method": METHOD_VERSION, "python": platform.python_version(), **found}
