"""What a benchmark's report says, in order; ``markdown.py`` and ``html.py`` only render it."""

from models.table1.results import BenchmarkReport, Difference, RowName, RowSummary
from worker.report import cost_sections, score_sections
from worker.report.content import Section, folds_in_words, mean_of
from worker.report.numbers import listed, percent, points
from worker.report.ranking import UNRANKED

_PARTS = (
    score_sections.table,
    score_sections.failed,
    score_sections.words,
    score_sections.differences,
    score_sections.classes,
    cost_sections.label_values,
    cost_sections.annotation,
    cost_sections.curves,
    cost_sections.styles,
    cost_sections.chosen,
    cost_sections.cost,
)


def sections(report: BenchmarkReport) -> list[Section]:
    """Those that have something to say."""
    said = [part(report) for part in _PARTS]
    return [section for section in said if section is not None] + [_made(report)]


def headline(report: BenchmarkReport) -> str | None:
    """The result in a sentence or two; None where no row has a score."""
    scored = [row for row in report.rows if mean_of(row) is not None]
    candidates = [row for row in scored if row.row not in UNRANKED]
    if not candidates:
        return None
    most = max(len(row.folds) for row in candidates)
    best = max((row for row in candidates if len(row.folds) == most), key=_mean)
    shown = next((row for row in candidates if row.row == "stylefilter"), best)
    # Means over other folds are no match.
    means = {row.row: _mean(row) for row in scored if row.folds == shown.folds}
    titles, ours = {row.row: row.title for row in scored}, shown.row
    others: tuple[RowName, ...] = ("source-only", "cut")
    intervals = {one.than: one for one in report.differences if one.row == ours}
    against = tuple(
        f"{points(means[ours] - means[other])} points{_interval(intervals.get(other))} "
        f"against {titles[other]}"
        for other in others
        if other in means and other != ours
    )
    lacks = len(shown.folds) < report.folds
    said = f"{titles[ours]} reaches {percent(means[ours])}% mean DICE"
    said += f" on {folds_in_words(len(shown.folds))} of {report.folds}" if lacks else ""
    said += f": {listed(against)}." if against else "."
    return said + _gap(means, ours)


def _mean(row: RowSummary) -> float:
    return mean_of(row) or 0.0


def _interval(one: Difference | None) -> str:
    return "" if one is None else f" (95% interval {points(one.low)} to {points(one.high)})"


def _gap(means: dict[RowName, float], ours: RowName) -> str:
    low, high = means.get("source-only"), means.get("target-only")
    if low is None or high is None or high <= low or ours == "source-only":
        return ""
    closed = (means[ours] - low) / (high - low)
    much = f"{closed:.0%}" if closed > 0 else "nothing"
    return f" It closes {much} of the gap to Target-only ({percent(high)}%)."


def _made(report: BenchmarkReport) -> Section:
    config = report.config
    items = (
        ("Source and target", f"{report.source} → {report.target}"),
        ("Folds", folds_in_words(report.folds)),
        ("Preset", report.preset),
        ("Seed", str(config.seed)),
        ("Device", config.device),
        *report.versions.items(),
        *(("Note", note) for note in report.notes),
    )
    return Section("How it was made", items=items)
