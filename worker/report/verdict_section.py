"""Show what labels chose, and the truth by test masks."""

from models.table1 import verdicts as truth
from models.table1.results import BenchmarkReport, JudgedCell, VerdictCheck
from worker.report.content import Grid, Section, TableCell, training_in_words
from worker.report.numbers import MISSING, percent, points

_OUTCOMES = {
    "better": "better than source-only",
    "not_told": "cannot be told",
    "worse": "worse than source-only",
    "not_judged": "too few labels",
}


def verdicts(report: BenchmarkReport) -> Section | None:
    """Show each choice by labels, and how often the verdicts were right."""
    if not report.verdicts:
        return None
    head = ("Fold", "Chosen", "By the labels it is", "Source-only", "Chosen, %", "Best candidate")
    rows = tuple(_row(cell, report) for cell in report.verdicts)
    grid = Grid("What the labels chose; mean DICE on the test masks in %", head, rows)
    notes = (
        "A verdict compares candidates with the source-only segmenter by image-level labels. The "
        "test masks chose nothing: they tell afterwards whether the labels were right.",
        *([_checked(report.verdict_check)] if report.verdict_check is not None else []),
    )
    return Section("Verdicts of the labels", notes=notes, grids=(grid,))


def _row(cell: JudgedCell, report: BenchmarkReport) -> tuple[TableCell, ...]:
    chosen, best = truth.chosen(cell), truth.best(cell, report.excluded)
    base = cell.verdict.candidates[0]
    return (
        TableCell(training_in_words(cell.fold, cell.seed, report) + _labels(cell, report)),
        TableCell(chosen.title),
        TableCell(_OUTCOMES[cell.verdict.outcome]),
        TableCell(percent(truth.mean_dice(base, report.excluded))),
        TableCell(percent(truth.mean_dice(chosen, report.excluded))),
        TableCell(
            MISSING
            if best is None
            else f"{percent(truth.mean_dice(best, report.excluded))} ({best.title})"
        ),
    )


def _labels(cell: JudgedCell, report: BenchmarkReport) -> str:
    """Name the labels, unless they are those of the table."""
    tiles = "" if cell.tile_px == report.tile_px else f", tiles of {cell.tile_px} px"
    return tiles if cell.budget is None else f"{tiles}, {cell.budget.title}"


def _checked(check: VerdictCheck) -> str:
    number = check.rightly + check.wrongly + check.left_open
    lost = (
        f"The best candidate is {points(check.mean_regret)} points from the chosen one on average, "
        f"and {points(check.most_regret)} at most."
    )
    if not number:
        return f"No candidate truly differs from source-only by more than one point. {lost}"
    return (
        f"Of {number} candidates that truly differ from source-only by more than one point, the "
        f"labels told {check.rightly} rightly and {check.wrongly} wrongly, and left "
        f"{check.left_open} open. {lost}"
    )
