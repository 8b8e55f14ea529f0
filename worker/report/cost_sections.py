"""What each row took: labels and masks, training time and memory, what chose its weights."""

from collections import Counter
from collections.abc import Iterator, Sequence

from models.capacity.limits import in_words
from models.table1.methods import ROWS, RowName
from models.table1.results import (
    BenchmarkReport,
    LabelValue,
    RowSummary,
    SharedStage,
    StyleScore,
)
from worker.report.content import Grid, Section, TableCell, folds_in_words, mean_of, title_of
from worker.report.groups import group_of
from worker.report.numbers import MISSING, count, duration, listed, percent, points, spread

CURVE = "dice/mean"
"""The series of ``BenchmarkReport.curves`` that is drawn."""

_CHOSEN_BY = {
    "target_val": "DICE on the target's validation masks",
    "source_val": "DICE on the source's validation masks",
    "labels": "agreement with the image-level labels and confidence",
    "last": "nothing: those of the last step",
}


def label_values(report: BenchmarkReport) -> Section | None:
    if not report.label_values:
        return None
    rows = tuple(
        (
            TableCell(f"{one.tile_px} px"),
            TableCell(count(one.num_labels)),
            TableCell(spread(one.with_filter)),
            TableCell(spread(one.without_filter)),
            TableCell(_gain_told(one)),
            TableCell(MISSING if one.labels_per_point is None else count(one.labels_per_point)),
        )
        for one in report.label_values
    )
    head = (
        "Tile",
        "Labels",
        "Filter on",
        "Filter off",
        "Gain in points",
        "Labels for a point",
    )
    note = (
        "A label says which classes are in a tile. The filter off is the same training without "
        f"them. In brackets the gain's 95% interval; {MISSING} as labels for a point: it is not "
        "above zero, or there is none."
    )
    grid = Grid("What labels bring, by the size of the labelled tiles: mean DICE in %", head, rows)
    return Section("The value of labels", notes=(note,), grids=(grid,))


def annotation(report: BenchmarkReport) -> Section | None:
    if not report.rows:
        return None
    low = next((row for row in report.rows if row.row == "source-only"), None)
    rows = tuple(
        (
            TableCell(title_of(row), group=group_of(row)),
            TableCell(count(row.num_labels)),
            TableCell(count(row.num_masks)),
            TableCell(percent(mean_of(row))),
            TableCell(_over(row, low)),
        )
        for row in report.rows
    )
    head = ("Method", "Image-level labels", "Masks", "Mean DICE, %", "Points over Source-only")
    grid = Grid("Annotation of the target that was used, mean over the folds", head, rows)
    note = "A label takes seconds and a mask hours: a row is worth what it gains for that."
    return Section("Annotation cost", notes=(note,), grids=(grid,))


def curves(report: BenchmarkReport) -> Section | None:
    if not any(curve.name == CURVE for curve in report.curves):
        return None
    note = (
        "Mean DICE on the validation sections by step of a stage: thin lines are folds, the "
        "thick line their mean, grey lines the means of the other rows."
    )
    return Section("Learning curves", notes=(note,), chart="curves")


def styles(report: BenchmarkReport) -> Section | None:
    if not report.styles:
        return None
    rows = tuple(
        (
            TableCell(str(choice.fold + 1)),
            *(_generator(score) for score in (choice.best("dice"), choice.best("label_score"))),
            _generator(choice.scores[-1]),
        )
        for choice in report.styles
    )
    rules = "By DICE", "By labels and confidence", "The last"
    caption = "The generator that each rule would keep, and mean DICE on the validation masks in %"
    grid = Grid(caption, ("Split", *rules), rows)
    kept = {_CHOSEN_BY.get(choice.selected_by, choice.selected_by) for choice in report.styles}
    note = (
        "Generators are kept on the way and scored by what the source-only segmenter makes of the "
        "images they render: by DICE on the target's validation masks; and without any mask, by "
        "how well the prediction agrees with the image-level labels, the mean confidence added. "
        f"The rows were tested with the one chosen by {listed(tuple(sorted(kept)))}."
    )
    return Section("Chosen generators", notes=(note,), chart="styles", grids=(grid,))


def _generator(score: StyleScore | None) -> TableCell:
    if score is None:
        return TableCell(MISSING)
    return TableCell(f"{percent(score.dice)} (step {score.step:,})")


def chosen(report: BenchmarkReport) -> Section | None:
    if not report.rows:
        return None
    rows = tuple(
        (
            TableCell(title_of(row)),
            TableCell(_chosen_by(row.selected)),
            TableCell(listed(tuple(f"{step:,}" for step in row.steps))),
            TableCell(_chosen_by(row.styles_selected)),
        )
        for row in report.rows
    )
    grid = Grid(
        "What chose the weights that were tested, their step in each fold, and what chose the "
        "generator",
        ("Method", "Weights by", "Step", "Generator by"),
        rows,
        numbers=False,
    )
    oracle = any("target_val" in (*row.selected, *row.styles_selected) for row in report.rows)
    notes = (
        "Choosing by the target's validation masks is the paper's protocol; it takes masks that "
        "one with image-level labels alone would not have.",
    )
    return Section("Chosen weights", notes=notes if oracle else (), grids=(grid,))


def cost(report: BenchmarkReport) -> Section | None:
    if not report.rows:
        return None
    rows = tuple(
        (
            TableCell(title_of(row), group=group_of(row)),
            TableCell(duration(row.seconds)),
            TableCell(duration(row.own_seconds)),
            TableCell(in_words(row.peak_memory_bytes)),
        )
        for row in report.rows
    )
    head = ("Method", "Training, all stages", "Its own stages", "Peak memory")
    grid = Grid("Time for a fold, mean over the folds, and the most memory of any", head, rows)
    notes = (f"All jobs together, each stage once: {duration(report.seconds)}.", *_in_runs(report))
    return Section("Time and memory", notes=notes, chart="time", grids=(grid, *_shared(report)))


def _in_runs(report: BenchmarkReport) -> Iterator[str]:
    """What a fold's rows cost together, in StyleFilter's runs."""
    one = next((row.seconds for row in report.rows if row.row == "stylefilter"), 0.0)
    shared = sum(stage.seconds for stage in report.shared) / report.folds
    # Rows that test one training share its time.
    paper = [name for name, row in ROWS.items() if row.paper]
    own = {ROWS[r.row].method.name: r.own_seconds for r in report.rows if r.row in paper}
    if one and all(any(row.row == name for row in report.rows) for name in paper):
        yield (
            f"The paper's nine rows of a fold take {duration(shared + sum(own.values()))}, "
            f"{(shared + sum(own.values())) / one:.1f} times the {duration(one)} of StyleFilter "
            "alone: what they share is trained once."
        )


def _shared(report: BenchmarkReport) -> tuple[Grid, ...]:
    if not report.shared:
        return ()
    alike: dict[tuple[str, tuple[RowName, ...]], list[SharedStage]] = {}
    for stage in report.shared:
        alike.setdefault((stage.stage, stage.rows), []).append(stage)
    rows = tuple(
        (
            TableCell(name),
            TableCell(listed(tuple(str(stage.fold + 1) for stage in stages))),
            TableCell(duration(sum(stage.seconds for stage in stages) / len(stages))),
            TableCell(listed(tuple(ROWS[row].title for row in used_by))),
        )
        for (name, used_by), stages in alike.items()
    )
    head = ("Stage", "Folds", "Time for a fold", "Rows that use it")
    caption = "Stages that were trained once for several rows"
    return (Grid(caption, head, rows, numbers=False),)


def _gain(score: float | None, than: float | None) -> str:
    return MISSING if score is None or than is None else points(score - than)


def _over(row: RowSummary, low: RowSummary | None) -> str:
    """Points over source-only; none where the two were tested on other folds."""
    if low is None or row.row == low.row or row.folds != low.folds:
        return MISSING
    return _gain(mean_of(row), mean_of(low))


def _gain_told(one: LabelValue) -> str:
    gain = _gain(one.with_filter.mean, one.without_filter.mean)
    if one.low is None or one.high is None:
        return gain
    return f"{gain} ({points(one.low)} to {points(one.high)})"


def _chosen_by(selected: Sequence[str | None]) -> str:
    counted = Counter(selected)
    words = {by: MISSING if by is None else _CHOSEN_BY.get(by, by) for by in counted}
    if len(counted) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{words[by]} ({folds_in_words(n)})" for by, n in counted.items())
