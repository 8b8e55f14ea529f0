"""A benchmark as a grid of cells: what each split and each row needs; free of torch."""

from pydantic import Field

from models.config import FrozenConfig, PresetName
from models.data.domain import DomainInfo
from models.data.splits import DatasetFolds, SectionLists, Splits
from models.table1.results import RowName
from models.table1.rows import MethodName


class Fold(FrozenConfig):
    """Which sections of both datasets train, validate and test, in one split."""

    source: SectionLists
    target: SectionLists


class Cell(FrozenConfig):
    """One job of a benchmark: a stage that several rows of a split share, or a method.

    ``method`` is None for a shared stage; the job's kind says which.
    """

    split: int = Field(description="From 0.")
    fold: Fold
    method: MethodName | None = None
    rows: tuple[RowName, ...] = Field((), description="Tested with the method's segmenter.")
    tile_px: int | None = Field(
        None, description="Side of the labelled target tiles, native pixels; none: as registered."
    )

    @property
    def title(self) -> str:
        tiles = "" if self.tile_px is None else f", tiles of {self.tile_px} px"
        return f"split {self.split + 1}: {self.method or 'shared by its rows'}{tiles}"


class Plan(FrozenConfig):
    """What a benchmark was asked for."""

    rows: tuple[RowName, ...]
    folds: tuple[Fold, ...]
    preset: PresetName
    tile_px: int | None
    label_tiles_px: tuple[int, ...]
    excluded: tuple[str, ...]

    def splits(self, source: DomainInfo, target: DomainInfo) -> Splits:
        """The splits, to publish and to use again."""
        return Splits(
            source=DatasetFolds(
                dataset=source.name,
                digest=source.digest,
                folds=tuple(fold.source for fold in self.folds),
            ),
            target=DatasetFolds(
                dataset=target.name,
                digest=target.digest,
                folds=tuple(fold.target for fold in self.folds),
            ),
        )
