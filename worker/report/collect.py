"""Make the report at the end of a benchmark, from the cells of its parts."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.jobs.result import JobResult
from app.jobs.transitions import DEPENDENCY_FAILED
from app.tables import JobState
from models.data.domain import Domain, normalise
from models.data.splits import Folds
from models.table1 import verdicts
from models.table1.annotation import annotation_values
from models.table1.cells import Cell
from models.table1.methods import ROWS, RowName
from models.table1.results import BenchmarkReport, FailedRow, JudgedCell, RowResult, SharedStage
from models.table1.statistics import differences, label_values, tabulate
from worker.report.cells import cell_of
from worker.report.figure import Panel, qualitative
from worker.report.files import write
from worker.report.parts import Part, Parts
from worker.report.sentences import of_row
from worker.report.terms import warning
from worker.tester import NothingMeasured, pictured


def write_report(parts: Parts, folder: Path, target: Domain) -> JobResult:
    """Write the report's files to ``folder``, and return the notes for the job's row.

    Raises:
        NothingMeasured: no part of the benchmark succeeded.
    """
    cells = cells_of(parts)
    report = report_of(cells, tuple(_failed(parts)))
    write(report, folder, figure=_figure(parts, target), folds=folds_of(cells))
    notes = [f"{row.title}: {of_row(report, row)}" for row in report.rows]
    if report.failed:
        notes.append(f"Results that are missing: {len(report.failed)}. The report says why.")
    said = warning(report)
    return JobResult(notes=notes if said is None else [said, *notes])


def folds_of(cells: Sequence[Cell]) -> Folds:
    """Return the folds of the cells' benchmark, as a document."""
    return cells[0].plan.published(cells[0].source, cells[0].target)


def cells_of(parts: Parts) -> list[Cell]:
    """Return the cells of all parts that succeeded."""
    return [cell_of(parts, part) for part in parts if part.succeeded]


def report_of(cells: Sequence[Cell], failed: tuple[FailedRow, ...] = ()) -> BenchmarkReport:
    """Return the report of cells that belong into one table.

    Raises:
        NothingMeasured: no cell has a result.
        ValueError: a row was measured twice, with other results.
    """
    results = tuple(_once(chain.from_iterable(cell.results for cell in cells)))
    if not results:
        raise NothingMeasured("none of the benchmark's parts succeeded; see their errors")
    first = cells[0]
    plan, names = first.plan, first.class_names
    own = [r for r in results if r.tile_px == plan.tile_px and r.budget is None]
    rows = tabulate(own, names, plan.excluded)
    tiles_px = tuple(dict.fromkeys(chain.from_iterable(c.plan.label_tiles_px for c in cells)))
    judged = tuple(_judged(cells))
    places = {(each.fold, each.seed) for each in results}
    places |= {(each.fold, each.seed) for each in failed}
    return BenchmarkReport(
        source=first.source.name,
        target=first.target.name,
        class_names=names,
        excluded=plan.excluded,
        preset=plan.preset,
        config=first.config,
        folds=len({fold for fold, _ in places}),
        seeds=tuple(sorted({seed for _, seed in places})),
        tile_px=plan.tile_px,
        results=results,
        # All rows have labels of the same tiles: the table says so once.
        rows=tuple(row.model_copy(update={"tile_px": None}) for row in rows),
        differences=differences(own, names, plan.excluded),
        label_values=label_values(results, names, plan.excluded, tiles_px),
        annotation_values=annotation_values(results, names, plan.excluded),
        curves=tuple(chain.from_iterable(cell.curves for cell in cells)),
        styles=tuple(cell.style for cell in cells if cell.style is not None),
        shared=tuple(_shared(cells)),
        verdicts=judged,
        verdict_check=verdicts.check(judged, plan.excluded),
        failed=failed,
        notes=tuple(dict.fromkeys(chain.from_iterable(cell.notes for cell in cells))),
        seconds=sum(cell.seconds for cell in cells),
        versions=first.versions,
    )


def _once(results: Iterator[RowResult]) -> Iterator[RowResult]:
    """Yield each result once, though several benchmarks may hold it."""
    found: dict[tuple[object, ...], RowResult] = {}
    for result in results:
        key = result.row, result.fold, result.seed, result.tile_px, result.budget
        if key not in found:
            found[key] = result
            yield result
        elif found[key].confusions != result.confusions:
            raise ValueError(
                f"{ROWS[result.row].title} was measured twice in fold {result.fold + 1} with seed "
                f"{result.seed}, with other results: leave one of the two out"
            )


def _judged(cells: Sequence[Cell]) -> Iterator[JudgedCell]:
    found = set()
    for cell in cells:
        key = cell.part.method, cell.part.fold, cell.seed, cell.part.tile_px, cell.part.budget
        if cell.verdict is not None and key not in found:
            found.add(key)
            yield JudgedCell(
                row=cell.part.rows[0],
                fold=cell.part.fold,
                seed=cell.seed,
                tile_px=cell.part.tile_px,
                budget=cell.part.budget,
                verdict=cell.verdict,
            )


def _shared(cells: Sequence[Cell]) -> Iterator[SharedStage]:
    """Yield each shared stage once, with the rows of all benchmarks that use it."""
    found: dict[tuple[str, int, int], SharedStage] = {}
    for stage in (cell.shared for cell in cells):
        if stage is not None:
            key = stage.stage, stage.fold, stage.seed
            first = found.setdefault(key, stage)
            rows = tuple(dict.fromkeys((*first.rows, *stage.rows)))
            found[key] = first.model_copy(update={"rows": rows})
    yield from found.values()


def _failed(parts: Parts) -> Iterator[FailedRow]:
    for part in parts:
        if part.succeeded:
            continue
        reason, plan = _reason(parts, part), part.plan
        for row in plan.rows:
            yield FailedRow(
                row=row,
                fold=plan.fold,
                seed=part.seed,
                tile_px=plan.tile_px,
                budget=plan.budget,
                reason=reason,
            )


def _reason(parts: Parts, part: Part) -> str:
    """Say why a part has no result, or why the shared stage failed that it waited for."""
    if part.job.error_code == DEPENDENCY_FAILED:
        for shared in parts.shared_by(part, part.plan.rows):
            if shared.job.state in (JobState.FAILED, JobState.CANCELLED):
                return f"Its stage {shared.stage} failed: {_reason(parts, shared)}"
    return part.job.error_message or f"The job was {part.job.state}."


def _figure(parts: Parts, target: Domain) -> bytes | None:
    """Draw a test section of the first fold as each row segments it; None without predictions."""
    found: dict[RowName, Path] = {}
    for part in parts:
        if part.succeeded and part.plan.fold == 0 and parts.in_table(part):
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
