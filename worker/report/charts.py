"""The report's charts as SVG: scores by row and by class, learning curves, time."""

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from models.table1.results import TITLES, BenchmarkReport, Curve, RowSummary
from worker.report.content import ChartName, absent, columns, mean_of, title_of
from worker.report.cost_sections import CURVE
from worker.report.groups import WORDS, Group, group_of, groups_of
from worker.report.numbers import MISSING, duration, percent, plain
from worker.report.ranking import marks
from worker.report.sections import sections
from worker.report.svg import PALETTE, RC, on_paper, to_svg

_WIDTH, _ROW, _HEAD, _FOOT = 1000, 27, 62, 48  # user units of the SVG, pixels on a wide screen
_PANELS = 4  # side by side
_INK, _MUTED, _GRID, _SURFACE = (
    PALETTE[name].light for name in ("ink", "muted", "grid", "surface")
)
_MARKER: dict[Group, str] = {"nothing": "s", "images": "o", "labels": "D", "masks": "^"}


def draw(name: ChartName, report: BenchmarkReport) -> str:
    """A chart of those that ``sections`` names, to be put into a page."""
    drawing, words = _CHARTS[name]
    with matplotlib.rc_context(RC):
        figure = drawing(report)
    return to_svg(figure, name, plain(f"{words}: {report.source} → {report.target}"))


def write_charts(report: BenchmarkReport, folder: Path) -> list[Path]:
    """Write every chart that has something to show as ``<name>.svg``; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [section.chart for section in sections(report) if section.chart is not None]
    for name in names:
        (folder / f"{name}.svg").write_text(on_paper(draw(name, report)), encoding="utf-8")
    return [folder / f"{name}.svg" for name in names]


def _mean(report: BenchmarkReport) -> Figure:
    rows = report.rows
    figure, axes = _canvas(len(rows), _left(rows), right=70)
    bounds = [
        mean
        for row in rows
        if row.row in ("source-only", "target-only") and (mean := mean_of(row)) is not None
    ]
    for mean in bounds:
        axes.axvline(100 * mean, color=_MUTED, linewidth=1, linestyle=(0, (3, 4)))
    _dots(axes, rows, "mean", size=9)
    _row_names(axes, rows)
    spreads = [found for row in rows if (found := row.dice.get("mean")) is not None]
    scores = [score for found in spreads for score in found.per_fold if score is not None]
    axes.set_xlim(0, min(100, 10 * ceil(10 * max(scores, default=1) + 0.3)))
    aside = axes.get_yaxis_transform()
    for y, (row, mark) in enumerate(zip(rows, marks(rows, "mean"), strict=True)):
        weight = "bold" if mark == "best" else "normal"
        axes.text(1.01, y, percent(mean_of(row)), transform=aside, va="center", weight=weight)
    dashed = "; dashed: Source-only and Target-only" if len(bounds) == 2 else ""
    axes.set_xlabel(f"mean DICE, %, with its standard deviation; small dots: folds{dashed}")
    _legend(figure, groups_of(rows))
    return figure


def _classes(report: BenchmarkReport) -> Figure:
    names = [name for name in columns(report) if name not in absent(report)]
    rows = report.rows
    panels = _panels(len(names), _left(rows), 17 * len(rows))
    figure = panels[0]
    for index, (name, axes) in enumerate(zip(names, panels[1], strict=True)):
        _dots(axes, rows, name, size=6)
        axes.set_title(_short(name, 24), weight="bold")
        axes.set_xticks([0, 50, 100])
        _row_names(axes, rows, shown=index % _PANELS == 0)
    _legend(figure, groups_of(rows))
    return figure


def _curves(report: BenchmarkReport) -> Figure:
    drawn = [curve for curve in report.curves if curve.name == CURVE and curve.steps]
    order = list(TITLES)
    keys = sorted({(curve.stage, order.index(curve.row)) for curve in drawn}, key=lambda k: k[::-1])
    of = {
        (stage, row): [c for c in drawn if c.stage == stage and c.row == order[row]]
        for stage, row in keys
    }
    means = {key: _mean_curve(curves) for key, curves in of.items()}
    groups = {row.row: group_of(row) for row in reversed(report.rows)}
    figure, panels = _panels(len(keys), 50, 130)
    top = max((max(curve.values) for curve in drawn), default=1)
    for index, ((stage, row), axes) in enumerate(zip(keys, panels, strict=True)):
        for other, (steps, values) in means.items():
            if other[0] == stage and other[1] != row:
                axes.plot(steps, values, color=_GRID, linewidth=1.2)
        group = groups.get(order[row], "images")
        colour = PALETTE[group].light
        for curve in of[stage, row]:
            values = [100 * value for value in curve.values]
            axes.plot(curve.steps, values, color=colour, linewidth=1, alpha=0.45)
        axes.plot(*means[stage, row], color=colour, linewidth=2.4)
        axes.set_title(_short(TITLES[order[row]], 28), weight="bold", pad=18)
        axes.text(0, 1.03, f"stage: {stage}", transform=axes.transAxes, color=_MUTED, size=11)
        axes.set_ylim(0, min(105, 110 * top))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        _rule(axes, "y")
        axes.tick_params(axis="x", length=0)
        if index + _PANELS >= len(keys):
            axes.set_xlabel("step")
        if index % _PANELS:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("DICE, %")
    _legend(figure, [g for g in WORDS if g in {groups.get(order[row]) for _, row in keys}])
    return figure


def _styles(report: BenchmarkReport) -> Figure:
    figure, panels = _panels(2, 50, 160)
    names = ("dice", "mean DICE, %", 100), ("label_score", "agreement + confidence", 1)
    for axes, (name, title, unit) in zip(panels, names, strict=True):
        for choice in report.styles:
            known = [s for s in choice.scores if getattr(s, name) is not None]
            values = [unit * getattr(score, name) for score in known]
            steps = [score.step for score in known]
            axes.plot(steps, values, color=PALETTE["images"].light, linewidth=1.6, alpha=0.6)
            if known:
                n = values.index(max(values))
                axes.plot(steps[n], values[n], "o", color=PALETTE["images"].light, markersize=7)
        axes.set_title(title, weight="bold")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel("step of CUT; dot: best of a fold")
        _rule(axes, "y")
        axes.tick_params(axis="x", length=0)
    return figure


def _time(report: BenchmarkReport) -> Figure:
    rows = report.rows
    figure, axes = _canvas(len(rows), _left(rows), right=110)
    longest = max(row.seconds for row in rows)
    unit, seconds = next(
        (unit, seconds)
        for unit, seconds in (("hours", 3600), ("minutes", 60), ("seconds", 1))
        if longest >= 2 * seconds or seconds == 1
    )
    for y, row in enumerate(rows):
        colour = PALETTE[group_of(row)].light
        own = min(row.own_seconds, row.seconds) / seconds
        rest = row.seconds / seconds - own
        axes.barh(y, own, height=0.62, color=colour)
        axes.barh(y, rest, left=own, height=0.62, color=colour, alpha=0.35)
        after = own + rest + 0.008 * longest / seconds
        axes.text(after, y, duration(row.seconds), va="center")
    axes.set_xlim(0, (longest / seconds or 1) * 1.02)
    axes.set_xlabel(f"{unit} of training for a fold; pale: stages shared with other rows")
    _row_names(axes, rows)
    _rule(axes, "x")
    _legend(figure, groups_of(rows))
    return figure


_CHARTS: dict[ChartName, tuple[Callable[[BenchmarkReport], Figure], str]] = {
    "mean": (_mean, "Mean DICE of each row, with its folds"),
    "classes": (_classes, "DICE of each row, class by class"),
    "curves": (_curves, "Validation DICE by step, row by row"),
    "styles": (_styles, "What the source-only segmenter makes of each kept generator's images"),
    "time": (_time, "Training time of each row"),
}


def _dots(axes: Axes, rows: Sequence[RowSummary], column: str, *, size: float) -> None:
    """Mean, standard deviation and folds of each row, a row a line down."""
    shown = [
        (y, group_of(row), score.mean, score)
        for y, row in enumerate(rows)
        if (score := row.dice.get(column)) is not None and score.mean is not None
    ]
    for group in groups_of(rows):
        of_group = [(y, 100 * mean, score) for y, one, mean, score in shown if one == group]
        ys = [y for y, _, _ in of_group]
        means = [mean for _, mean, _ in of_group]
        low = [max(0, mean - 100 * (score.std or 0)) for _, mean, score in of_group]
        high = [min(100, mean + 100 * (score.std or 0)) for _, mean, score in of_group]
        folds = [
            (100 * value, y)
            for y, _, score in of_group
            for value in score.per_fold
            if value is not None
        ]
        colour = PALETTE[group].light
        axes.hlines(ys, low, high, color=colour, linewidth=size / 2.4, alpha=0.4)
        axes.plot(
            [x for x, _ in folds],
            [y for _, y in folds],
            marker="o",
            color=colour,
            markersize=size / 2.4,
            alpha=0.8,
            linestyle="none",
            clip_on=False,
        )
        axes.plot(
            means,
            ys,
            marker=_MARKER[group],
            color=colour,
            markersize=size,
            markeredgecolor=_SURFACE,
            markeredgewidth=1.2,
            linestyle="none",
            clip_on=False,
        )
    for empty in sorted(set(range(len(rows))) - {y for y, *_ in shown}):
        axes.text(0, empty, f" {MISSING}", color=_MUTED, va="center")
    axes.set_xlim(0, 100)
    _rule(axes, "x")


def _row_names(axes: Axes, rows: Sequence[RowSummary], *, shown: bool = True) -> None:
    axes.set_ylim(len(rows) - 0.4, -0.6)
    names = [_short(title_of(row), 34) for row in rows] if shown else [""] * len(rows)
    axes.set_yticks(range(len(rows)), names, color=_INK)
    axes.tick_params(axis="y", length=0, pad=10)
    axes.spines["left"].set_visible(False)


def _rule(axes: Axes, axis: Literal["x", "y"]) -> None:
    axes.grid(axis=axis, color=_GRID, linewidth=0.8)
    axes.tick_params(axis=axis, length=0)


def _canvas(num_rows: int, left: float, right: float) -> tuple[Figure, Axes]:
    height = _HEAD + _ROW * num_rows + _FOOT
    figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
    box = (left / _WIDTH, _FOOT / height)
    size = ((_WIDTH - left - right) / _WIDTH, _ROW * num_rows / height)
    return figure, figure.add_axes((*box, *size))


def _panels(number: int, left: float, panel: float) -> tuple[Figure, list[Axes]]:
    """Small multiples of a height; names of rows stand left of the first of each line."""
    lines = ceil(number / _PANELS)
    gap, head, foot = 30, 44, 26
    top = 44
    height = top + lines * (panel + head + foot) + 24
    figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
    width = (_WIDTH - left - 20 - gap * (_PANELS - 1)) / _PANELS
    axes = []
    for index in range(number):
        line, place = divmod(index, _PANELS)
        x = left + place * (width + gap)
        y = height - top - (line + 1) * (panel + head) - line * foot
        box = (x / _WIDTH, y / height, width / _WIDTH, panel / height)
        axes.append(figure.add_axes(box))
    return figure, axes


def _legend(figure: Figure, groups: Iterable[Group]) -> None:
    handles = [
        Line2D([], [], color=PALETTE[group].light, marker=_MARKER[group], linewidth=0, markersize=8)
        for group in groups
    ]
    figure.legend(
        handles,
        [WORDS[group] for group in groups],
        loc="upper left",
        bbox_to_anchor=(0, 1),
        ncols=4,
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.6,
        title="Trained with",
        alignment="left",
        title_fontproperties={"size": 12},
    )


def _left(rows: Iterable[RowSummary]) -> float:
    return 24 + 7.2 * max(len(_short(title_of(row), 34)) for row in rows)


def _short(text: str, length: int) -> str:
    flat = plain(text)
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"


def _mean_curve(curves: Sequence[Curve]) -> tuple[list[int], list[float]]:
    """In percent, at the steps that all folds have."""
    steps = sorted(set.intersection(*(set(curve.steps) for curve in curves)))
    values = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
    return steps, [100 * sum(value[step] for value in values) / len(values) for step in steps]
