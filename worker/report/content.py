"""The contents of a report: sections of notes, tables, charts and terms, all in plain text."""

from dataclasses import dataclass
from typing import Literal

from models.table1.results import BenchmarkReport, RowSummary
from worker.report.groups import Group
from worker.report.ranking import Mark

ChartName = Literal["mean", "classes", "curves", "styles", "time"]


@dataclass(frozen=True)
class TableCell:
    """A cell of a table, as text."""

    text: str
    mark: Mark | None = None
    group: Group | None = None
    """The group that colours a row's title: what the row knew of the target."""
    note: str = ""
    """Small print under the text."""


@dataclass(frozen=True)
class Grid:
    """A table; the first cell of each row is the row's title."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    numbers: bool = True
    """All columns but the first hold numbers."""


@dataclass(frozen=True)
class Section:
    """A section of the report; an empty field is not shown."""

    title: str
    notes: tuple[str, ...] = ()
    chart: ChartName | None = None
    figure: bool = False
    """The section shows the picture of segmentations."""
    grids: tuple[Grid, ...] = ()
    items: tuple[tuple[str, str], ...] = ()
    """Terms, each with its explanation."""

    @property
    def key(self) -> str:
        """The name of the section in links within a page."""
        return self.title.lower().replace(" ", "-")


def title_of(row: RowSummary) -> str:
    return row.title if row.tile_px is None else f"{row.title}, tiles of {row.tile_px} px"


def mean_of(row: RowSummary, column: str = "mean") -> float | None:
    score = row.dice.get(column)
    return None if score is None else score.mean


def columns(report: BenchmarkReport) -> tuple[str, ...]:
    """Return the table's classes."""
    return tuple(name for name in report.class_names if name not in report.excluded)


def absent(report: BenchmarkReport) -> tuple[str, ...]:
    """Return the table's classes that no test mask holds."""
    return tuple(
        name
        for name in columns(report)
        if report.rows and all(mean_of(row, name) is None for row in report.rows)
    )


def folds_in_words(number: int) -> str:
    return "one fold" if number == 1 else f"{number} folds"


def training_in_words(fold: int, seed: int, report: BenchmarkReport) -> str:
    """Name a training by its fold or, with several seeds, by both."""
    return str(fold + 1) if len(report.seeds) == 1 else f"{fold + 1}, seed {seed}"


def trainings_in_words(number: int, report: BenchmarkReport) -> str:
    """Count trainings: one in each fold or, with several seeds, one with each of them."""
    if len(report.seeds) == 1:
        return folds_in_words(number)
    return "one training" if number == 1 else f"{number} trainings"
