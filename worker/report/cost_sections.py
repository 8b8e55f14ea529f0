"""Show the costs of each row, labels, masks, time and memory, and the choice of its weights."""

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
from worker.report.content import (
    Grid,
    Section,
    TableCell,
    mean_of,
    title_of,
    training_in_words,
    trainings_in_words,
)
from worker.report.groups import group_of
from worker.report.numbers import MISSING, count, duration, listed, percent, points, spread

CURVE = "dice/mean"
"""The series of ``BenchmarkReport.curves`` that is drawn."""

_CHOSEN_BY = {
    "target_val": "DICE on the target's validation masks",
    "source_val": "DICE on the source's validation masks",
    "labels": "the image-level labels",
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
        "Side of a tile",
        "Labels",
        "With the filter",
        "Without",
        "Gain in points (95% interval)",
        "Labels per point",
    )
    note = (
        "An image-level label says whether a class is present in a tile. StyleFilter's filter "
        "takes classes that are absent out of the pseudo-labels; without the filter the same "
        f"training uses no label. The last column is {MISSING} where the gain may be chance."
    )
    grid = Grid("Mean DICE in %, by the size of the labelled tiles", head, rows)
    return Section("What labels bring", notes=(note,), grids=(grid,))


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
    head = ("Row", "Image-level labels", "Masks", "Mean DICE, %", "Points over Source-only")
    grid = Grid("Annotation of the target that each row used, mean over the folds", head, rows)
    note = (
        "A person gives a label in seconds and draws a mask in hours. Compare the points that a "
        "row gains with the annotation that it needs."
    )
    return Section("Annotation cost", notes=(note,), grids=(grid,))


def curves(report: BenchmarkReport) -> Section | None:
    if not any(curve.name == CURVE for curve in report.curves):
        return None
    note = (
        "The curves show mean DICE on the validation sections while a stage of training runs. A "
        "thin line is a fold, the thick line is the mean of the folds, and grey lines are the "
        "means of other rows."
    )
    return Section("Learning curves", notes=(note,), chart="curves")


def styles(report: BenchmarkReport) -> Section | None:
    if not report.styles:
        return None
    rows = tuple(
        (
            TableCell(training_in_words(choice.fold, choice.seed, report)),
            _generator(choice.best("dice")),
            _generator(choice.best("label_probability")),
            _generator(choice.scores[-1]),
        )
        for choice in report.styles
    )
    rules = "By DICE", "By labels", "The last"
    caption = "Generator that each rule would choose; mean DICE on the validation masks in %"
    grid = Grid(caption, ("Fold", *rules), rows)
    kept = {_CHOSEN_BY.get(choice.selected_by, choice.selected_by) for choice in report.styles}
    note = (
        "A generator is the network that CUT trains to redraw target images in the style of the "
        "source. Several are kept during training. Each is scored by how well the source-only "
        "network segments the images that it redraws: by DICE on the target's validation masks; "
        "or, without any mask, by the probability that the result gives to the image-level "
        "labels. The rows were tested with the generator that was chosen "
        f"by {listed(tuple(sorted(kept)))}."
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
            TableCell(_chosen_by(row.selected, report)),
            TableCell(listed(tuple(f"{step:,}" for step in row.steps))),
            TableCell(_chosen_by(row.styles_selected, report)),
        )
        for row in report.rows
    )
    grid = Grid(
        "The rule that chose the tested weights, their training step in each fold, and the rule "
        "that chose the generator",
        ("Row", "Weights by", "Step", "Generator by"),
        rows,
        numbers=False,
    )
    notes = [
        "Weights are the numbers of a network that training adjusts. They are kept at several "
        "steps, and those that score best by the rule in the table are tested."
    ]
    if any("target_val" in (*row.selected, *row.styles_selected) for row in report.rows):
        notes.append(
            "The paper also chooses weights by the target's validation masks. If you have only "
            "image-level labels, you do not have such masks."
        )
    return Section("Chosen weights", notes=tuple(notes), grids=(grid, *_by_rules(report)))


_RULES = {"last": "The last", "labels": "By labels", "oracle": "By target masks"}


def _by_rules(report: BenchmarkReport) -> tuple[Grid, ...]:
    """Show the scores with the weights that each rule would have chosen."""
    rows = tuple(
        (
            TableCell(title_of(row), group=group_of(row)),
            *(TableCell(spread(row.choices.get(rule))) for rule in _RULES),
        )
        for row in report.rows
        if row.choices
    )
    caption = (
        "Mean DICE in % with the weights that another rule would have chosen: none but the last "
        "step; the least log-loss of the training tiles' labels; the best DICE on the target's "
        "validation masks"
    )
    return (Grid(caption, ("Row", *_RULES.values()), rows),) if rows else ()


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
    head = ("Row", "Training, all stages", "Its own stages", "Peak memory")
    grid = Grid("Training time per fold, mean over the folds, and peak memory of any", head, rows)
    together = f"All jobs together took {duration(report.seconds)}; a shared stage counts once."
    notes = (together, *_in_runs(report))
    return Section("Time and memory", notes=notes, chart="time", grids=(grid, *_shared(report)))


def _in_runs(report: BenchmarkReport) -> Iterator[str]:
    """Compare the time of the paper's rows in a fold with the time of StyleFilter."""
    one = next((row.seconds for row in report.rows if row.row == "stylefilter"), 0.0)
    trainings = report.folds * len(report.seeds)
    shared = sum(stage.seconds for stage in report.shared) / trainings
    # Rows that test one training share its time.
    paper = [name for name, row in ROWS.items() if row.paper]
    own = {ROWS[r.row].method.name: r.own_seconds for r in report.rows if r.row in paper}
    if one and all(any(row.row == name for row in report.rows) for name in paper):
        yield (
            f"In a fold, the paper's nine rows take {duration(shared + sum(own.values()))}. That "
            f"is {(shared + sum(own.values())) / one:.1f} times the {duration(one)} of StyleFilter "
            "alone, because what rows share is trained once."
        )


def _shared(report: BenchmarkReport) -> tuple[Grid, ...]:
    if not report.shared:
        return ()
    # One line for all folds of a stage, if the same rows use it.
    alike: dict[tuple[str, tuple[RowName, ...]], list[SharedStage]] = {}
    for stage in report.shared:
        alike.setdefault((stage.stage, stage.rows), []).append(stage)
    rows = tuple(
        (
            TableCell(name),
            TableCell(listed(_folds(stages))),
            TableCell(duration(sum(stage.seconds for stage in stages) / len(stages))),
            TableCell(listed(tuple(ROWS[row].title for row in used_by))),
        )
        for (name, used_by), stages in alike.items()
    )
    head = ("Stage", "Folds", "Time per fold", "Rows that use it")
    caption = "Stages that were trained once for several rows"
    return (Grid(caption, head, rows, numbers=False),)


def _folds(stages: Sequence[SharedStage]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(stage.fold + 1) for stage in stages))


def _gain(score: float | None, than: float | None) -> str:
    return MISSING if score is None or than is None else points(score - than)


def _over(row: RowSummary, low: RowSummary | None) -> str:
    """Write the points over source-only; a dash if the two rows have different folds."""
    if low is None or row.row == low.row or row.places != low.places:
        return MISSING
    return _gain(mean_of(row), mean_of(low))


def _gain_told(one: LabelValue) -> str:
    gain = _gain(one.with_filter.mean, one.without_filter.mean)
    if one.low is None or one.high is None:
        return gain
    return f"{gain} ({points(one.low)} to {points(one.high)})"


def _chosen_by(selected: Sequence[str | None], report: BenchmarkReport) -> str:
    counted = Counter(selected)
    words = {by: MISSING if by is None else _CHOSEN_BY.get(by, by) for by in counted}
    if len(counted) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{words[by]} ({trainings_in_words(n, report)})" for by, n in counted.items())
