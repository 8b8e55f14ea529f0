"""Draw the report's charts as SVG: scores by row and by class, learning curves, time."""

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from models.table1.methods import ROWS
from models.table1.results import BenchmarkReport, Curve, RowSummary
from worker.report.content import ChartName, absent, columns, mean_of, title_of
from worker.report.cost_sections import CURVE
from worker.report.drawing import PALETTE, drawing, to_svg
from worker.report.groups import WORDS, Group, group_of, groups_of
from worker.report.numbers import MISSING, duration, percent, plain, short
from worker.report.ranking import marks
from worker.report.sections import sections

_WIDTH_PX, _ROW_PX, _AROUND_PX = 1000, 27, 110  # of the SVG; around the rows: legend and axis
_PANELS = 4  # side by side
_MARKER: dict[Group, str] = {"nothing": "s", "images": "o", "labels": "D", "masks": "^"}


def draw(name: ChartName, report: BenchmarkReport) -> str:
    """Draw one of the charts that ``sections`` names, as SVG."""
    chart, words = _CHARTS[name]
    with drawing():
        return to_svg(chart(report), plain(f"{words}: {report.source} → {report.target}"))


def write_charts(report: BenchmarkReport, folder: Path) -> None:
    """Write every chart that has something to show as ``<name>.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections(report):
        if section.chart is not None:
            text = draw(section.chart, report)
            (folder / f"{section.chart}.svg").write_text(text, encoding="utf-8")


def _mean(report: BenchmarkReport) -> Figure:
    rows = report.rows
    figure = _figure(_AROUND_PX + _ROW_PX * len(rows))
    axes = figure.subplots()
    bounds = [
        mean
        for row in rows
        if row.row in ("source-only", "target-only") and (mean := mean_of(row)) is not None
    ]
    for mean in bounds:
        axes.axvline(100 * mean, color=PALETTE["muted"], linewidth=1, linestyle=(0, (3, 4)))
    _dots(axes, rows, "mean", size=9)
    _name_rows(axes, rows)
    # x counts in widths of the axes: the numbers stand right of them.
    aside = axes.get_yaxis_transform()
    for y, (row, mark) in enumerate(zip(rows, marks(rows, "mean"), strict=True)):
        weight = "bold" if mark == "best" else "normal"
        axes.text(1.01, y, percent(mean_of(row)), transform=aside, va="center", weight=weight)
    dashed = "; dashed: Source-only and Target-only" if len(bounds) == 2 else ""
    axes.set_xlabel(f"mean DICE in %; bar: standard deviation; small dots: folds{dashed}")
    _legend(figure, groups_of(rows))
    return figure


def _classes(report: BenchmarkReport) -> Figure:
    names = [name for name in columns(report) if name not in absent(report)]
    rows = report.rows
    figure, panels = _panels(len(names), 50 + 17 * len(rows))
    for name, axes in zip(names, panels, strict=True):
        _dots(axes, rows, name, size=6)
        _name_rows(axes, rows)
        axes.set_title(short(name, 24))
    _legend(figure, groups_of(rows))
    return figure


def _curves(report: BenchmarkReport) -> Figure:
    drawn = [curve for curve in report.curves if curve.name == CURVE and curve.steps]
    # Keyed by a row's place, so that the charts stand in the table's order.
    order = list(ROWS)
    of: dict[tuple[int, str], list[Curve]] = {}
    for curve in sorted(drawn, key=lambda curve: (order.index(curve.row), curve.stage)):
        of.setdefault((order.index(curve.row), curve.stage), []).append(curve)
    means = {key: _mean_curve(curves) for key, curves in of.items()}
    groups = {order.index(row.row): group_of(row) for row in reversed(report.rows)}
    figure, panels = _panels(len(of), 200)
    for (key, curves), axes in zip(of.items(), panels, strict=True):
        row, stage = key
        for other, (steps, values) in means.items():
            if other != key and other[1] == stage:
                axes.plot(steps, values, color=PALETTE["grid"], linewidth=1.2)
        colour = PALETTE[groups.get(row, "images")]
        for curve in curves:
            values = [100 * value for value in curve.values]
            axes.plot(curve.steps, values, color=colour, linewidth=1, alpha=0.45)
        axes.plot(*means[key], color=colour, linewidth=2.4)
        axes.set_title(short(ROWS[order[row]].title, 28))
        _steps(axes, f"step of {stage}")
    for axes in panels[::_PANELS]:
        axes.set_ylabel("DICE, %")
    _legend(figure, [group for group in WORDS if group in {groups.get(row) for row, _ in of}])
    return figure


def _styles(report: BenchmarkReport) -> Figure:
    figure, panels = _panels(2, 240, sharey=False)  # the two scores have different units
    names = ("dice", "mean DICE, %", 100), ("label_probability", "probability of the labels", 1)
    for axes, (name, title, unit) in zip(panels, names, strict=True):
        for choice in report.styles:
            known = [s for s in choice.scores if getattr(s, name) is not None]
            values = [unit * getattr(score, name) for score in known]
            steps = [score.step for score in known]
            axes.plot(steps, values, color=PALETTE["images"], linewidth=1.6, alpha=0.6)
            if known:
                n = values.index(max(values))
                axes.plot(steps[n], values[n], "o", color=PALETTE["images"], markersize=7)
        axes.set_title(title)
        _steps(axes, "step of CUT; dot: best of a fold")
    return figure


def _time(report: BenchmarkReport) -> Figure:
    rows = report.rows
    figure = _figure(_AROUND_PX + _ROW_PX * len(rows))
    axes = figure.subplots()
    longest = max(row.seconds for row in rows)
    # The largest unit of which the longest bar has at least two.
    unit, seconds = next(
        (unit, seconds)
        for unit, seconds in (("hours", 3600), ("minutes", 60), ("seconds", 1))
        if longest >= 2 * seconds or seconds == 1
    )
    for y, row in enumerate(rows):
        colour = PALETTE[group_of(row)]
        own = min(row.own_seconds, row.seconds) / seconds
        rest = row.seconds / seconds - own
        axes.barh(y, own, height=0.62, color=colour)
        axes.barh(y, rest, left=own, height=0.62, color=colour, alpha=0.35)
        after = own + rest + 0.008 * longest / seconds
        axes.text(after, y, duration(row.seconds), va="center")
    axes.set_xlabel(f"{unit} of training per fold; pale: stages that rows share")
    _name_rows(axes, rows)
    _rule(axes, "x")
    _legend(figure, groups_of(rows))
    return figure


_CHARTS: dict[ChartName, tuple[Callable[[BenchmarkReport], Figure], str]] = {
    "mean": (_mean, "Mean DICE of each row, with its folds"),
    "classes": (_classes, "DICE of each row, class by class"),
    "curves": (_curves, "Validation DICE by step, row by row"),
    "styles": (_styles, "Scores of the source-only segmenter on the images of each kept generator"),
    "time": (_time, "Training time of each row"),
}


def _dots(axes: Axes, rows: Sequence[RowSummary], column: str, *, size: float) -> None:
    """Draw the mean, the standard deviation and the folds of each row, row below row."""
    aside = axes.get_yaxis_transform()
    for y, row in enumerate(rows):
        score, colour = row.dice.get(column), PALETTE[group_of(row)]
        if score is None or score.mean is None:
            axes.text(0, y, f" {MISSING}", color=PALETTE["muted"], va="center", transform=aside)
            continue
        std = score.std or 0.0
        # A bar beyond 0 or 100 % would promise scores that cannot be.
        low, high = max(0, score.mean - std), min(1, score.mean + std)
        axes.hlines(y, 100 * low, 100 * high, color=colour, linewidth=size / 2.4, alpha=0.4)
        folds = [100 * value for value in score.per_fold if value is not None]
        axes.plot(folds, [y] * len(folds), "o", color=colour, markersize=size / 2.4, alpha=0.8)
        axes.plot(
            100 * score.mean,
            y,
            marker=_MARKER[group_of(row)],
            color=colour,
            markersize=size,
            markeredgecolor=PALETTE["surface"],
            markeredgewidth=1.2,
        )
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    _rule(axes, "x")


def _name_rows(axes: Axes, rows: Sequence[RowSummary]) -> None:
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first row is at the top
    names = [short(title_of(row), 34) for row in rows]
    axes.set_yticks(range(len(rows)), names, color=PALETTE["ink"])
    axes.tick_params(axis="y", length=0, pad=10)
    axes.spines["left"].set_visible(False)


def _steps(axes: Axes, label: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel(label)
    _rule(axes, "y")
    axes.tick_params(axis="x", length=0)


def _rule(axes: Axes, axis: Literal["x", "y"]) -> None:
    axes.grid(axis=axis, linewidth=0.8)
    axes.tick_params(axis=axis, length=0)


def _figure(height_px: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.01)
    return Figure(figsize=(_WIDTH_PX / 72, height_px / 72), dpi=72, layout=layout)


def _panels(number: int, panel_px: float, *, sharey: bool = True) -> tuple[Figure, list[Axes]]:
    """Return a figure of small panels of equal height, at most four in a line."""
    lines, columns_ = ceil(number / _PANELS), min(number, _PANELS)
    figure = _figure(60 + lines * panel_px)
    grid = figure.subplots(lines, columns_, sharey=sharey, squeeze=False)
    panels: list[Axes] = list(grid.flat)
    for axes in panels[number:]:
        axes.remove()  # the last line may be shorter
    return figure, panels[:number]


def _legend(figure: Figure, groups: Iterable[Group]) -> None:
    handles = [
        Line2D([], [], color=PALETTE[group], marker=_MARKER[group], linewidth=0, markersize=8)
        for group in groups
    ]
    figure.legend(
        handles,
        [WORDS[group] for group in groups],
        loc="outside upper left",
        ncols=4,
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.6,
        title="Trained with",
        alignment="left",
    )


def _mean_curve(curves: Sequence[Curve]) -> tuple[list[int], list[float]]:
    """Average curves, in percent, at the steps that all folds have."""
    steps = sorted(set.intersection(*(set(curve.steps) for curve in curves)))
    values = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
    return steps, [100 * sum(value[step] for value in values) / len(values) for step in steps]
