"""Cells of Table 1: the results of one part of a benchmark, as a file that any table can take up.

Free of torch.
"""

from collections.abc import Sequence

from pydantic import Field

from models.choice.verdict import Verdict
from models.config.base import FrozenConfig
from models.config.stylefilter import StyleFilterConfig
from models.table1.plan import BenchmarkPart, BenchmarkPlan, Data
from models.table1.results import Curve, RowResult, SharedStage, StyleChoice

_MAY_DIFFER = {"rows", "seeds", "only_folds", "label_tiles_px", "crop_tiles_px", "budgets"}


class Cell(FrozenConfig):
    """The results of one part of a benchmark, and all that a table needs to know of them."""

    source: Data
    target: Data
    class_names: tuple[str, ...]
    plan: BenchmarkPlan = Field(description="The plan of the whole benchmark.")
    part: BenchmarkPart = Field(description="The part: its fold, its method and its rows.")
    stage: str = Field(description="The stage that trained the part's own network.")
    seed: int
    config: StyleFilterConfig
    results: tuple[RowResult, ...] = Field(
        description="The results of its rows; none for a stage that rows share."
    )
    verdict: Verdict | None = Field(
        description="The verdict of the labels on all candidates; none for a method that does not "
        "choose."
    )
    curves: tuple[Curve, ...]
    style: StyleChoice | None
    shared: SharedStage | None = Field(description="The stage that its rows share, if it is one.")
    notes: tuple[str, ...]
    seconds: float = Field(description="The time of the part's own job.")
    versions: dict[str, str]

    @property
    def name(self) -> str:
        """The name of its file, without the ending."""
        what = self.part.method or self.stage
        tiles = "" if self.part.tile_px is None else f"-{self.part.tile_px}px"
        budget = self.part.budget
        used = "" if budget is None else f"-{budget.title.replace(' ', '-')}"
        return f"fold-{self.part.fold + 1}-seed-{self.seed}-{what}{tiles}{used}"

    @property
    def pair(self) -> dict[str, object]:
        """All that is alike in the cells of one table: data, folds, configuration, labels."""
        plan = self.plan.model_dump(mode="json", exclude=_MAY_DIFFER)
        return {
            "source": self.source.digest,
            "target": self.target.digest,
            "class_names": list(self.class_names),
            **plan,
            "config": self.config.model_dump(mode="json", exclude={"seed", "device"}),
            "method version": self.versions["method"],
        }


class CellsDiffer(ValueError):
    """Cells that do not belong into one table."""


def checked(cells: Sequence[Cell]) -> None:
    """Check that cells belong into one table.

    Raises:
        CellsDiffer: names what differs.
    """
    first = cells[0].pair
    for cell in cells[1:]:
        for name, value in cell.pair.items():
            if value != first[name]:
                raise CellsDiffer(
                    f"{cell.name} and {cells[0].name} differ in {name}: {_short(value)} and "
                    f"{_short(first[name])}. Cells of one table differ only in rows, folds and "
                    "seeds"
                )


def _short(value: object) -> str:
    words = str(value)
    return words if len(words) <= 60 else f"{words[:59]}…"
