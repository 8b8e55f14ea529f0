"""Say in sentences what a report's numbers mean: the whole result, and each row."""

from collections.abc import Iterator

from models.table1.methods import RowName
from models.table1.results import BenchmarkReport, Difference, RowSummary
from worker.report.content import mean_of, trainings_in_words
from worker.report.numbers import count, duration, listed, percent, points
from worker.report.ranking import UNRANKED

_COMPARED_WITH: tuple[RowName, ...] = ("source-only", "cut")


def headline(report: BenchmarkReport) -> str | None:
    """Tell the result of StyleFilter, or of the best row; None if no row has a score."""
    scored = [row for row in report.rows if mean_of(row) is not None]
    candidates = [row for row in scored if row.row not in UNRANKED]
    if not candidates:
        return None
    # A row that lacks folds cannot be called the best.
    most = max(len(row.folds) for row in candidates)
    best = max((row for row in candidates if len(row.folds) == most), key=_mean)
    shown = next((row for row in candidates if row.row == "stylefilter"), best)
    # Means over different folds cannot be compared.
    means = {row.row: _mean(row) for row in scored if row.places == shown.places}
    titles, ours = {row.row: row.title for row in scored}, shown.row
    against = tuple(
        f"{points(means[ours] - means[other])} points{_interval(_difference(report, ours, other))} "
        f"against {titles[other]}"
        for other in _COMPARED_WITH
        if other in means and other != ours
    )
    wanted = report.folds * len(report.seeds)
    lacks = len(shown.folds) < wanted
    said = f"{titles[ours]} reaches {percent(means[ours])}% mean DICE"
    said += f" on {trainings_in_words(len(shown.folds), report)} of {wanted}" if lacks else ""
    said += f": {listed(against)}." if against else "."
    return said + _gap(means, ours)


def of_row(report: BenchmarkReport, row: RowSummary) -> str:
    """Tell a row's score, its distance from source-only and target-only, and what the row used."""
    return " ".join((*_score(report, row), *_cost(row)))


def _score(report: BenchmarkReport, row: RowSummary) -> Iterator[str]:
    mean = mean_of(row)
    if mean is None:
        yield "No class of the table is in the test masks, so there is no score."
        return
    said = f"Mean DICE is {percent(mean)}%"
    gain = _difference(report, row.row, "source-only")
    if gain is None or gain.low <= 0 <= gain.high:
        yield f"{said}."
    else:
        side = "above" if gain.mean > 0 else "below"
        yield f"{said}, {100 * abs(gain.mean):.1f} points {side} Source-only{_interval(gain)}."
    if gain is None:
        if row.row != "source-only" and any(one.row == "source-only" for one in report.rows):
            yield (
                "There is no interval for the difference from Source-only: that takes the same "
                "test sections for both rows, and at least two of them."
            )
    elif gain.low <= 0 <= gain.high:
        told = f"{points(gain.mean)} points{_interval(gain)}"
        yield f"The difference from Source-only, {told}, may be chance."
    elif row.row != "target-only":  # whose own share of the gap is always 100 %
        gap = _difference(report, "target-only", "source-only")
        if gap is not None and gap.low > 0 and gain.mean > 0:
            yield f"This closes {gain.mean / gap.mean:.0%} of the gap to Target-only."


def _cost(row: RowSummary) -> Iterator[str]:
    amounts = ((row.num_labels, "labelled tile"), (row.num_masks, "mask"))
    used = tuple(f"{count(n)} {name}{'' if n == 1 else 's'}" for n, name in amounts if n)
    annotation = listed(used) if used else "no annotation"
    took = duration(row.seconds)
    yield f"The row used {annotation} of the target, and its training took {took} per fold."
    if "target_val" in (*row.selected, *row.styles_selected):
        yield "The target's validation masks chose the weights."


def _difference(report: BenchmarkReport, row: RowName, than: RowName) -> Difference | None:
    """Return the difference of a row from an earlier one; None if it has no interval."""
    return next((one for one in report.differences if (one.row, one.than) == (row, than)), None)


def _interval(one: Difference | None) -> str:
    return "" if one is None else f" (95% interval {points(one.low)} to {points(one.high)})"


def _mean(row: RowSummary) -> float:
    return mean_of(row) or 0.0


def _gap(means: dict[RowName, float], ours: RowName) -> str:
    low, high = means.get("source-only"), means.get("target-only")
    if low is None or high is None or high <= low or ours == "source-only":
        return ""
    closed = (means[ours] - low) / (high - low)
    much = f"{closed:.0%}" if closed > 0 else "nothing"
    return f" It closes {much} of the gap to Target-only ({percent(high)}%)."
