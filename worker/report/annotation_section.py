"""Show what rows gain for each minute of annotation."""

from models.table1.annotation import MINUTES_PER_MASK, SECONDS_PER_TILE
from models.table1.methods import ROWS
from models.table1.results import AnnotationValue, BenchmarkReport
from worker.report.content import Grid, Section, TableCell
from worker.report.numbers import MISSING, count, points, spread

_PICKED = {"random": "at random", "next": "as suggested"}


def annotation_values(report: BenchmarkReport) -> Section | None:
    if not report.annotation_values:
        return None
    head = (
        "Row",
        "Side of a tile",
        "Labelled tiles",
        "Picked",
        "Points",
        "Masks",
        "Minutes",
        "Mean DICE, %",
        "Over Source-only, points (95% interval)",
        "Points per minute",
    )
    rows = tuple(_row(one) for one in report.annotation_values)
    note = (
        f"A person is assumed to take {SECONDS_PER_TILE} seconds for the labels of a tile or for a "
        f"point, which labels its tile, and {MINUTES_PER_MASK} minutes for the mask of a section. "
        "Tiles are drawn at random, and with one seed more tiles hold the fewer ones; or they are "
        "those that the service suggests "
        "to label next, before it knows any label. Masks and points come without other labels."
    )
    grid = Grid("What annotation brings", head, rows)
    return Section("Points for a minute of annotation", notes=(note,), grids=(grid,))


def _row(one: AnnotationValue) -> tuple[TableCell, ...]:
    told = (
        "" if one.low is None or one.high is None else f" ({points(one.low)} to {points(one.high)})"
    )
    rate = one.points_per_minute
    return (
        TableCell(ROWS[one.row].title),
        TableCell("as registered" if one.tile_px is None else f"{one.tile_px} px"),
        TableCell(count(one.num_labels)),
        TableCell(_PICKED[one.order] if one.num_labels else MISSING),
        TableCell(count(one.num_points)),
        TableCell(count(one.num_masks)),
        TableCell(count(one.minutes)),
        TableCell(spread(one.dice)),
        TableCell(points(one.gain) + told),
        TableCell(MISSING if rate is None else f"{rate:+.2f}".replace("-", "−")),
    )
