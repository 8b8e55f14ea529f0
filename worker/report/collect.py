"""Make the report at the end of a benchmark, from the results of its parts."""

import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.jobs.result import JobResult
from app.jobs.transitions import DEPENDENCY_FAILED
from app.tables import JobKind, JobState
from models.data.domain import Domain, normalise
from models.metadata import METHOD_VERSION
from models.table1.methods import METHODS, ROWS, RowName
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
from worker.report.cost_sections import CURVE
from worker.report.figure import Panel, qualitative
from worker.report.files import write
from worker.report.parts import Part, Parts
from worker.report.sentences import of_row
from worker.report.terms import warning
from worker.tester import NothingMeasured, pictured

_CURVE_POINTS = 200
_ALL_POINTS = 10_000
"""The points of a series that is not thinned: a rule chooses among all scored generators."""


def write_report(parts: Parts, folder: Path, source: Domain, target: Domain) -> JobResult:
    """Write the report's files to ``folder``, and return the notes for the job's row.

    Raises:
        NothingMeasured: no part of the benchmark succeeded.
    """
    report = report_of(parts, source, target)
    folds = parts.plan.published(source.info, target.info)
    write(report, folder, figure=_figure(parts, target), folds=folds)
    notes = [f"{row.title}: {of_row(report, row)}" for row in report.rows]
    if report.failed:
        notes.append(f"Results that are missing: {len(report.failed)}. The report says why.")
    said = warning(report)
    return JobResult(notes=notes if said is None else [said, *notes])


def report_of(parts: Parts, source: Domain, target: Domain) -> BenchmarkReport:
    """Return the whole report.

    Raises:
        NothingMeasured: no part of the benchmark succeeded.
    """
    results = tuple(_results(parts))
    if not results:
        raise NothingMeasured("none of the benchmark's parts succeeded; see their errors")
    plan, names = parts.plan, target.info.class_names
    own = [result for result in results if result.tile_px == plan.tile_px]
    rows = tabulate(own, names, plan.excluded)
    return BenchmarkReport(
        source=source.info.name,
        target=target.info.name,
        class_names=names,
        excluded=plan.excluded,
        preset=plan.preset,
        config=parts.benchmark.usable_config(),
        folds=len(plan.folds),
        seeds=plan.seeds or (parts.benchmark.usable_config().seed,),
        tile_px=plan.tile_px,
        results=results,
        # All rows have labels of the same tiles: the table says so once.
        rows=tuple(row.model_copy(update={"tile_px": None}) for row in rows),
        differences=differences(own, names, plan.excluded),
        label_values=label_values(results, names, plan.excluded, plan.label_tiles_px),
        curves=tuple(_curves(parts)),
        styles=tuple(_styles(parts)),
        shared=tuple(_shared(parts)),
        failed=tuple(_failed(parts)),
        notes=tuple(_notes(parts)),
        seconds=sum(sum(parts.own_seconds(part).values()) for part in parts),
        versions=_versions(),
    )


def _results(parts: Parts) -> Iterator[RowResult]:
    """Yield each row's scores on each fold, with the time and memory of all jobs that it needs."""
    for part in parts:
        if not part.succeeded or part.plan.method is None:
            continue
        # Stylising is done by each part, also where an earlier job trained its stage.
        own = parts.own_seconds(part).get("stylise", 0.0) + parts.seconds(part)
        for scores in part.scores:
            shared = parts.shared_by(part, [scores.row])
            memory = (parts.peak_memory_bytes(each) for each in (part, *shared))
            facts = scores.model_dump()
            facts["peak_memory_bytes"] = max(scores.peak_memory_bytes, *memory)
            seconds = own + sum(parts.seconds(each) for each in shared)
            yield RowResult(**facts, seed=part.seed, seconds=seconds, own_seconds=own)


def _failed(parts: Parts) -> Iterator[FailedRow]:
    for part in parts:
        if part.succeeded:
            continue
        reason, plan = _reason(parts, part), part.plan
        for row in plan.rows:
            yield FailedRow(
                row=row, fold=plan.fold, seed=part.seed, tile_px=plan.tile_px, reason=reason
            )


def _reason(parts: Parts, part: Part) -> str:
    """Say why a part has no result, or why the shared stage failed that it waited for."""
    if part.job.error_code == DEPENDENCY_FAILED:
        for shared in parts.shared_by(part, part.plan.rows):
            if shared.job.state in (JobState.FAILED, JobState.CANCELLED):
                return f"Its stage {shared.stage} failed: {_reason(parts, shared)}"
    return part.job.error_message or f"The job was {part.job.state}."


def _notes(parts: Parts) -> Iterator[str]:
    """Yield a note on each change of a config by which a job came to fit its GPU."""
    for part in parts:
        for change in part.result.changed:
            yield f"{part.plan.title}: the GPU's memory was too small. This was changed: {change}"


def _shared(parts: Parts) -> Iterator[SharedStage]:
    for part in parts:
        if part.plan.method is None and part.succeeded:
            yield SharedStage(
                stage=part.stage,
                fold=part.plan.fold,
                seed=part.seed,
                seconds=parts.seconds(part),
                rows=parts.users_of(part),
            )


def _curves(parts: Parts) -> Iterator[Curve]:
    """Yield each part's validation DICE, under the row whose test stylises as training does."""
    for part in parts:
        # The chart shows the table's rows, so the table's tiles only.
        if part.plan.method is None or part.plan.tile_px != parts.plan.tile_px:
            continue
        scores = parts.by_step(part, CURVE, _CURVE_POINTS)
        if scores:
            yield Curve(
                row=_as_trained(part),
                fold=part.plan.fold,
                seed=part.seed,
                stage=part.stage,
                name=CURVE,
                steps=tuple(scores),
                values=tuple(scores.values()),
            )


def _as_trained(part: Part) -> RowName:
    """Return the row that is tested on images stylised as in training, or else the first row."""
    assert part.plan.method is not None
    styler, rows = METHODS[part.plan.method].trained_on, part.plan.rows
    return next((row for row in rows if ROWS[row].tested_on == styler), rows[0])


def _styles(parts: Parts) -> Iterator[StyleChoice]:
    """Yield the scores of each fold's generators, if a score chose one of them."""
    by = parts.benchmark.usable_config().style.select_on
    for part in parts:
        if part.job.kind != JobKind.TRAIN_STYLE or by == "last":
            continue
        dice, agreement, both = (
            parts.by_step(part, name, _ALL_POINTS)
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
            yield StyleChoice(fold=part.plan.fold, seed=part.seed, selected_by=by, scores=scores)


def _figure(parts: Parts, target: Domain) -> bytes | None:
    """Draw a test section of the first fold as each row segments it; None without predictions."""
    found: dict[RowName, Path] = {}
    for part in parts:
        if part.succeeded and part.plan.fold == 0 and part.plan.tile_px == parts.plan.tile_px:
            found = part.pictures | found  # of several seeds the first
    if not found:
        return None
    section = pictured(target)
    image = target.native_image(section)
    panels = [Panel("Image", image=_grey(image, target.window(section)))]
    panels += [
        Panel(its.title, classes=np.asarray(Image.open(found[row])))
        for row, its in ROWS.items()
        if row in found
    ]
    panels.append(Panel("Truth", classes=target.native_mask(section)))
    return qualitative(panels, target.info.class_names)


def _grey(image: NDArray[np.generic], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Return a stored image (H, W) as grey values in 8 bits, by its intensity window."""
    return (normalise(image, window) * 255).round().astype(np.uint8)


def _versions() -> dict[str, str]:
    names = ("stylefilter-service", "torch", "numpy")
    found = {name: version(name) for name in names}
    return {"method": METHOD_VERSION, "python": platform.python_version(), **found}
