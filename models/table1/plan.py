"""The plan of a benchmark, and of each of its jobs; free of torch."""

from typing import Literal

from pydantic import Field

from models.config.base import FrozenConfig
from models.config.presets import PresetName
from models.data.splits import DatasetFolds, Folds, SectionLists
from models.table1.methods import MethodName, RowName


class Data(FrozenConfig):
    """A dataset by its name and by the digest of its content."""

    name: str
    digest: str


class FoldSections(FrozenConfig):
    """The sections of both datasets that train, validate and test in one fold."""

    source: SectionLists
    target: SectionLists


LabelOrder = Literal["random", "next"]
"""The way to pick tiles to label: at random, or as `GET /datasets/ID/next-tiles` orders them."""


class Budget(FrozenConfig):
    """The annotation of the target that a method may use, where that is not all there is."""

    num_labels: int = Field(description="The number of labelled training tiles.")
    num_masks: int = Field(0, description="The number of training sections with a mask.")
    order: LabelOrder = Field("random", description="The way in which the tiles are picked.")
    num_points: int = Field(0, description="The number of points, which are read off masks.")

    @property
    def title(self) -> str:
        if self.num_points:
            return f"{self.num_points} points"
        if self.num_masks:
            return f"{self.num_masks} masks"
        return f"{self.num_labels} {'' if self.order == 'random' else 'next '}labels"


class BenchmarkPart(FrozenConfig):
    """One job of a benchmark: a stage that several rows of a fold share, or a method.

    ``method`` is None for a shared stage, which the job's kind names.
    """

    fold: int = Field(description="The number of the fold, from 0.")
    sections: FoldSections
    seed: int | None = Field(
        None, description="The seed of a benchmark with several; `null` if it has one."
    )
    method: MethodName | None = None
    rows: tuple[RowName, ...] = Field((), description="The rows that test the method's segmenter.")
    tile_px: int | None = Field(
        None,
        description="The side of the labelled target tiles, in native pixels; `null` for the tiles "
        "of the registration.",
    )
    budget: Budget | None = Field(
        None, description="A smaller annotation than that of the table; `null` for the table's."
    )

    @property
    def title(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        tiles = "" if self.tile_px is None else f", tiles of {self.tile_px} px"
        used = "" if self.budget is None else f", {self.budget.title}"
        return f"fold {self.fold + 1}{seed}: {self.method or 'shared by its rows'}{tiles}{used}"


class BenchmarkPlan(FrozenConfig):
    """The rows, folds, seeds and labels that a benchmark was asked for."""

    rows: tuple[RowName, ...]
    folds: tuple[FoldSections, ...]
    seeds: tuple[int, ...] = Field(
        (), description="The seeds if there are several; the only one is in the configuration."
    )
    only_folds: tuple[int, ...] = Field(
        (), description="The numbers of the folds to measure, from 0; without them all folds."
    )
    preset: PresetName
    tile_px: int | None
    label_tiles_px: tuple[int, ...]
    crop_tiles_px: tuple[int, ...] = Field(
        (), description="Those of ``label_tiles_px`` that a crop can hold."
    )
    budgets: tuple[Budget, ...] = Field(
        (), description="The smaller annotations with which rows of ``VALUED`` are measured."
    )
    excluded: tuple[str, ...]

    @property
    def measured(self) -> tuple[int, ...]:
        """The numbers of the folds to measure, from 0."""
        return self.only_folds or tuple(range(len(self.folds)))

    def published(self, source: Data, target: Data) -> Folds:
        """Return the folds as a document, which can be published and used again."""
        return Folds(
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
