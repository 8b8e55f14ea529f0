"""Show how well each row segments: Table 1, each fold, differences, classes."""

from models.table1.methods import ROWS, RowName
from models.table1.results import BenchmarkReport, Difference, RowSummary, Spread
from worker.report.content import (
    ChartName,
    Grid,
    Section,
    TableCell,
    absent,
    columns,
    title_of,
    training_in_words,
    trainings_in_words,
)
from worker.report.groups import group_of
from worker.report.numbers import MISSING, listed, percent, points, spread
from worker.report.ranking import UNRANKED, marks, ranked
from worker.report.sentences import of_row

_COMPARED_WITH = ("source-only", "cut", "stylefilter")

_OF_ONE_SEED = (
    "An interval shows how far the difference could move with other test sections of the same "
    "kind. It does not show how far the difference could move if all networks were trained "
    "again from another random seed."
)
_OF_SEVERAL_SEEDS = (
    "An interval shows how far the difference could move with other test sections of the same "
    "kind, and if all networks were trained again from other random seeds. The second part "
    "follows from the differences between the seeds of a fold, by Student's t distribution."
)


def table(report: BenchmarkReport) -> Section | None:
    if not report.rows:
        return None
    return Section(
        "Scores",
        notes=tuple(_notes(report)),
        chart="mean",
        grids=(_table_one(report), *_each_fold(report)),
    )


def words(report: BenchmarkReport) -> Section | None:
    if not report.rows:
        return None
    items = ((title_of(row), f"{ROWS[row.row].about} {of_row(report, row)}") for row in report.rows)
    return Section("Row by row", items=tuple(items))


def failed(report: BenchmarkReport) -> Section | None:
    if not report.failed:
        return None
    rows = tuple(
        (
            TableCell(ROWS[one.row].title),
            TableCell(training_in_words(one.fold, one.seed, report)),
            TableCell(MISSING if one.tile_px is None else f"{one.tile_px} px"),
            TableCell(one.reason),
        )
        for one in report.failed
    )
    number = len(rows)
    caption = f"{number} missing result{'s' if number > 1 else ''}, and why"
    return Section(
        "What failed",
        grids=(Grid(caption, ("Row", "Fold", "Tiles", "Reason"), rows, numbers=False),),
    )


def differences(report: BenchmarkReport) -> Section | None:
    if not report.differences:
        return None
    found: dict[tuple[RowName, RowName], Difference] = {
        (one.row, one.than): one for one in report.differences
    }
    present = {one.row for one in report.differences}, {one.than for one in report.differences}
    # In the table's order, which the differences do not keep.
    rows, than = ([name for name in ROWS if name in names] for names in present)
    than = [name for name in than if name in _COMPARED_WITH]
    # Reversed, so that of several sizes of tiles the first gives the title.
    titles = {row.row: row.title for row in reversed(report.rows)}
    grid = Grid(
        "Difference of mean DICE in points, with its 95% interval; bold: the interval does not "
        "contain 0",
        ("Row", *(f"against {titles.get(name, ROWS[name].title)}" for name in than)),
        tuple(
            (
                TableCell(titles.get(name, ROWS[name].title)),
                *(_difference(found.get((name, other))) for other in than),
            )
            for name in rows
        ),
    )
    notes = (
        _OF_ONE_SEED if len(report.seeds) == 1 else _OF_SEVERAL_SEEDS,
        "The intervals come from a paired bootstrap: the test sections of each fold, or their "
        "groups where there are two or more, are drawn again 2,000 times, the same ones for both "
        "rows. The differences between any two rows are in report.json.",
    )
    return Section("Differences between rows", notes=notes, grids=(grid,))


def seeds(report: BenchmarkReport) -> Section | None:
    """Show how much the mean DICE of each row differs between seeds."""
    found = [(row, row.dice["mean"]) for row in report.rows if "mean" in row.dice]
    rows = tuple(
        (
            TableCell(title_of(row), group=group_of(row)),
            *(TableCell(percent(_of_seed(row, score, seed))) for seed in report.seeds),
            TableCell(percent(score.seed_std)),
            TableCell(percent(score.seed_range)),
        )
        for row, score in found
        if score.seed_std is not None
    )
    if not rows:
        return None
    note = (
        "The same training with another seed begins with other weights and meets the images in "
        "another order. The standard deviation between the seeds of a fold is a mean over the "
        "folds; the last column is the largest difference between two seeds on one fold."
    )
    head = ("Row", *(f"seed {seed}" for seed in report.seeds), "Between seeds", "Largest")
    grid = Grid("Mean DICE in %, mean over the folds, and how much seeds change it", head, rows)
    return Section("Seeds", notes=(note,), grids=(grid,))


def _of_seed(row: RowSummary, score: Spread, seed: int) -> float | None:
    its = [
        value
        for value, its_seed in zip(score.per_fold, row.seeds, strict=True)
        if its_seed == seed and value is not None
    ]
    return sum(its) / len(its) if its else None


def classes(report: BenchmarkReport) -> Section | None:
    if not report.rows or not columns(report):
        return None
    scored = set(columns(report)) - set(absent(report))
    chart: ChartName | None = "classes" if scored else None
    return Section("Class by class", notes=tuple(_class_notes(report)), chart=chart)


def _table_one(report: BenchmarkReport) -> Grid:
    names = (*columns(report), "mean")
    by_column = {name: marks(report.rows, name) for name in names}
    most = max(len(row.folds) for row in report.rows)
    rows = []
    for index, row in enumerate(report.rows):
        of_most = f"{len(row.folds)} of {trainings_in_words(most, report)}"
        lacking = "" if len(row.folds) == most else of_most
        title = TableCell(title_of(row), group=group_of(row), note=lacking)
        cells = (TableCell(spread(row.dice.get(name)), by_column[name][index]) for name in names)
        rows.append((title, *cells))
    caption = (
        f"DICE in %, mean ± standard deviation over {trainings_in_words(most, report)}: "
        f"{report.source} → {report.target}"
    )
    return Grid(caption, ("Row", *names), tuple(rows))


def _notes(report: BenchmarkReport) -> list[str]:
    notes = []
    if any(any(marks(report.rows, name)) for name in (*columns(report), "mean")):
        apart = [f"{row.title} ({UNRANKED[row.row]})" for row in report.rows if row.row in UNRANKED]
        notes.append(
            "In each column the best score is bold and the second best is underlined; equal "
            f"numbers share their mark. Not ranked: {'; '.join((*apart, 'missing values'))}."
        )
    if len(report.seeds) > 1:
        notes.append(
            f"Every method was trained with {len(report.seeds)} seeds in each of "
            f"{report.folds} folds. A seed is the number from which all random numbers of a "
            "training are made."
        )
    if max(len(row.folds) for row in report.rows) == 1:
        notes.append("There is one fold only, so each standard deviation is 0.0 and says nothing.")
    if report.tile_px is not None:
        notes.append(
            f"Each image-level label is for a tile of {report.tile_px} x {report.tile_px} pixels. "
            "The labels were read from the target's masks, as a person would have given them."
        )
    lacking = tuple(
        title_of(row)
        for row, takes_part in zip(report.rows, ranked(report.rows), strict=True)
        if not takes_part and row.row not in UNRANKED
    )
    if lacking:
        notes.append(
            f"Not ranked, because folds are missing: {listed(lacking)}. Means over different folds "
            "cannot be compared."
        )
    return notes


def _each_fold(report: BenchmarkReport) -> tuple[Grid, ...]:
    places = sorted({place for row in report.rows for place in row.places})
    if len(places) < 2:  # the first table shows the same numbers
        return ()
    rows = tuple(
        (TableCell(title_of(row), group=group_of(row)), *_per_fold(row, places))
        for row in report.rows
    )
    head = ("Row", *(f"fold {training_in_words(*place, report)}" for place in places))
    return (Grid("Mean DICE in %, fold by fold", head, rows),)


def _per_fold(row: RowSummary, places: list[tuple[int, int]]) -> list[TableCell]:
    score = row.dice.get("mean")
    values = dict(zip(row.places, score.per_fold, strict=True)) if score else {}
    return [TableCell(percent(values.get(place))) for place in places]


def _difference(one: Difference | None) -> TableCell:
    if one is None:
        return TableCell(MISSING)
    text = f"{points(one.mean)} ({points(one.low)} to {points(one.high)})"
    return TableCell(text, "best" if one.low > 0 or one.high < 0 else None)


def _class_notes(report: BenchmarkReport) -> list[str]:
    notes = ["Each class has a scale of its own."]
    if report.excluded:
        notes.append(f"Left out of the table and of its means: {listed(report.excluded)}.")
    if absent(report):
        notes.append(f"No test mask contains {listed(absent(report))}, so there is no score.")
    for name in columns(report):
        scores = [score for row in report.rows if (score := row.dice.get(name)) is not None]
        number = max((len(score.per_fold) for score in scores), default=0)
        having = max((_num_scores(score.per_fold) for score in scores), default=0)
        if 0 < having < number:
            notes.append(f"{name} is in the test masks of {having} of {number} folds only.")
    return notes


def _num_scores(per_fold: tuple[float | None, ...]) -> int:
    return sum(score is not None for score in per_fold)
