"""Makes the parts of a benchmark: jobs that several rows share where they can.

Any worker may take any part.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from app.tables import Job, JobKind
from models.config.stylefilter import StyleFilterConfig
from models.table1.methods import (
    METHODS,
    ROWS,
    VALUED,
    MethodName,
    RowName,
    needs_style,
    rows_by_method,
)
from models.table1.plan import BenchmarkPart, BenchmarkPlan

_Method = tuple[MethodName, tuple[RowName, ...], Mapping[str, object]]
"""A method to train, the rows that test it, and fields of its part."""


@dataclass(frozen=True)
class Part:
    """A part of a benchmark; ``needs`` holds the jobs that have to succeed before it."""

    job: Job
    config: StyleFilterConfig
    needs: Sequence[UUID]


def parts(plan: BenchmarkPlan, benchmark: Job, config: StyleFilterConfig) -> Iterator[Part]:
    """Yield all parts of a benchmark, each after the parts that it needs."""
    # All folds of a seed come first: a benchmark that is cut off has whole folds.
    for seed in plan.seeds or (None,):
        seeded = config if seed is None else config.changed({"seed": seed})
        for fold in plan.measured:
            place = BenchmarkPart(fold=fold, seed=seed, sections=plan.folds[fold])
            yield from _Fold(plan, place, benchmark, seeded).parts()


class _Fold:
    """Makes the parts of one fold with one seed; ``place`` is a part with no more than these."""

    def __init__(
        self, plan: BenchmarkPlan, place: BenchmarkPart, benchmark: Job, config: StyleFilterConfig
    ) -> None:
        self._plan, self._place, self._benchmark = plan, place, benchmark
        self._config = config

    def parts(self) -> Iterator[Part]:
        methods = [*self._methods(), *self._valued()]
        pretrain = style = None
        if any(METHODS[method].masks_of == "source" for method, _, _ in methods):
            pretrain = self._part(JobKind.PRETRAIN)
            yield pretrain
        if any(needs_style(method, rows) for method, rows, _ in methods):
            chosen_by_segmenter = self._config.style.select_on != "last"
            needs = [pretrain.job.id] if chosen_by_segmenter and pretrain else []
            # Labels may choose the style model: the same labels that the rows learn from.
            style = self._part(JobKind.TRAIN_STYLE, needs, tile_px=self._plan.tile_px)
            yield style
        for method, rows, fields in methods:
            needs = []
            if pretrain is not None and METHODS[method].masks_of == "source":
                needs.append(pretrain.job.id)
            if style is not None and needs_style(method, rows):
                needs.append(style.job.id)
            yield self._part(JobKind.METHOD, needs, method=method, rows=rows, **fields)

    def _methods(self) -> Iterator[_Method]:
        """Yield each method to train for the table, and StyleFilter for other sides of tiles."""
        plan = self._plan
        rows: set[RowName] = set(plan.rows)
        if plan.label_tiles_px:
            rows.add("unfiltered")  # labels of tiles of any size are compared with this row
        for method, its_rows in rows_by_method(rows).items():
            yield method, its_rows, {"tile_px": plan.tile_px}
        for tile_px in plan.label_tiles_px:
            if tile_px != plan.tile_px or "stylefilter" not in rows:
                yield "stylefilter", ("stylefilter",), {"tile_px": tile_px}

    def _valued(self) -> Iterator[_Method]:
        """Yield the methods that are trained with other labels, or with masks."""
        plan = self._plan
        for row in VALUED:
            if row not in plan.rows:
                continue
            method = ROWS[row].method.name
            for tile_px in plan.crop_tiles_px:
                if tile_px != plan.tile_px:
                    yield method, (row,), {"tile_px": tile_px}
            for budget in plan.budgets:
                yield method, (row,), {"tile_px": plan.tile_px, "budget": budget}

    def _part(self, kind: JobKind, needs: Sequence[UUID] = (), **fields: object) -> Part:
        benchmark, plan = self._benchmark, self._place.model_copy(update=fields)
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
        return Part(job, self._config, needs)
