"""Group rows by the part of the target that trained them, for the colours of the report."""

from collections.abc import Iterable
from typing import Literal

from models.table1.methods import ROWS
from models.table1.results import RowSummary

Group = Literal["nothing", "images", "labels", "masks"]

WORDS: dict[Group, str] = {
    "nothing": "nothing of the target",
    "images": "target images",
    "labels": "target images and image-level labels",
    "masks": "target masks",
}


def group_of(row: RowSummary) -> Group:
    its = ROWS[row.row]
    if its.method.masks_of == "target":
        return "masks"
    if row.num_labels > 0:
        return "labels"
    return "images" if its.method.adapt or its.tested_on != "none" else "nothing"


def groups_of(rows: Iterable[RowSummary]) -> list[Group]:
    """Return the groups of rows, from the group that uses least of the target to most."""
    found = {group_of(row) for row in rows}
    return [group for group in WORDS if group in found]
