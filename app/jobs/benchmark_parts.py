"""Makes the parts of a benchmark: jobs that several rows share where they can.

Any worker may take any part.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from app.tables import Job, JobKind
from models.config.stylefilter import StyleFilterConfig
from models.table1.methods import METHODS, MethodName, RowName, needs_style, rows_by_method
from models.table1.plan import BenchmarkPart, BenchmarkPlan


@dataclass(frozen=True)
class Part:
    """A part of a benchmark; ``needs`` holds the jobs that have to succeed before it."""

    job: Job
    needs: list[UUID] = field(default_factory=list)


def parts(plan: BenchmarkPlan, benchmark: Job, config: StyleFilterConfig) -> Iterator[Part]:
    """Yield all parts of a benchmark, each after the parts that it needs."""
    for fold in range(len(plan.folds)):
        yield from _Fold(plan, fold, benchmark, config).parts()


class _Fold:
    """Makes the parts of one fold."""

    def __init__(
        self, plan: BenchmarkPlan, fold: int, benchmark: Job, config: StyleFilterConfig
    ) -> None:
        self._plan, self._fold, self._benchmark = plan, fold, benchmark
        self._chosen_by_segmenter = config.style.select_on != "last"

    def parts(self) -> Iterator[Part]:
        methods = list(self._methods())
        pretrain = style = None
        if any(METHODS[method].masks_of == "source" for method, _, _ in methods):
            pretrain = self._part(JobKind.PRETRAIN, BenchmarkPart(**self._place()))
            yield pretrain
        if any(needs_style(method, rows) for method, rows, _ in methods):
            needs = [pretrain.job.id] if self._chosen_by_segmenter and pretrain else []
            # Labels may choose the style model: the same labels that the rows learn from.
            plan = BenchmarkPart(**self._place(), tile_px=self._plan.tile_px)
            style = self._part(JobKind.TRAIN_STYLE, plan, needs)
            yield style
        for method, rows, tile_px in methods:
            needs = []
            if pretrain is not None and METHODS[method].masks_of == "source":
                needs.append(pretrain.job.id)
            if style is not None and needs_style(method, rows):
                needs.append(style.job.id)
            plan = BenchmarkPart(**self._place(), method=method, rows=rows, tile_px=tile_px)
            yield self._part(JobKind.METHOD, plan, needs)

    def _methods(self) -> Iterator[tuple[MethodName, tuple[RowName, ...], int | None]]:
        """Yield each method to train, the rows it serves, and the side of its labelled tiles."""
        plan = self._plan
        rows: set[RowName] = set(plan.rows)
        if plan.label_tiles_px:
            rows.add("unfiltered")  # labels of tiles of any size are compared with this row
        for method, its_rows in rows_by_method(rows).items():
            yield method, its_rows, plan.tile_px
        for tile_px in plan.label_tiles_px:
            if tile_px != plan.tile_px or "stylefilter" not in rows:
                yield "stylefilter", ("stylefilter",), tile_px

    def _place(self) -> dict[str, object]:
        return {"fold": self._fold, "sections": self._plan.folds[self._fold]}

    def _part(self, kind: JobKind, plan: BenchmarkPart, needs: list[UUID] | None = None) -> Part:
        benchmark = self._benchmark
        job = Job(
            id=uuid4(),
            kind=kind,
            parent_id=benchmark.id,
            plan=plan.model_dump(mode="json"),
            source_id=benchmark.source_id,
            target_id=None if kind == JobKind.PRETRAIN else benchmark.target_id,
            reuse=benchmark.reuse,
            target_classes=benchmark.target_classes,
        )
        return Part(job, needs or [])
