"""Choose Table 1's bold and underlined numbers: best and second best of a column."""

from collections.abc import Mapping, Sequence
from typing import Literal

from models.table1.methods import ROWS, Row, RowName
from models.table1.results import RowSummary
from worker.report.numbers import percent

Mark = Literal["best", "runner-up"]


def _apart(row: Row) -> str | None:
    if row.method.masks_of == "target":
        return "it learned from masks of the target"
    return "it knows the labels of the test images" if row.filtered else None


UNRANKED: Mapping[RowName, str] = {
    name: why for name, row in ROWS.items() if (why := _apart(row)) is not None
}
"""The rows that know more of the target than others may, each with the reason."""


def ranked(rows: Sequence[RowSummary]) -> list[bool]:
    """Tell for each row whether it is ranked: it knows no more than others, and has all folds."""
    most = max((len(row.folds) for row in rows), default=0)
    return [row.row not in UNRANKED and len(row.folds) == most for row in rows]


def marks(rows: Sequence[RowSummary], column: str) -> list[Mark | None]:
    """Mark the best and second best of a column, as shown; equal numbers share their mark.

    A column of equal numbers has no mark, and 0.0 is never a second best.
    """
    shown: list[float | None] = []
    for row, takes_part in zip(rows, ranked(rows), strict=True):
        score = row.dice.get(column)
        counts = takes_part and score is not None and score.mean is not None
        # As written: numbers that look equal share a mark.
        shown.append(float(percent(score.mean)) if counts and score is not None else None)
    values = sorted({value for value in shown if value is not None}, reverse=True)
    if len(values) < 2:
        return [None] * len(rows)
    names: dict[float | None, Mark] = {values[0]: "best"}
    if values[1] > 0:
        names[values[1]] = "runner-up"
    return [names.get(value) for value in shown]
