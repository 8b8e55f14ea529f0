"""Table 1 of the paper for any pair: rows x folds to means, spreads and differences; no torch."""

from typing import Literal

from pydantic import AliasChoices, Field

from models.config import PresetName, StyleFilterConfig
from models.frozen_config import FrozenConfig
from models.table1.methods import RowName


class RowScores(FrozenConfig):
    """One row of the table on one fold: what its job measured."""

    row: RowName
    # Parts that ended before version 0.2 wrote it as ``split``.
    fold: int = Field(description="From 0.", validation_alias=AliasChoices("fold", "split"))
    tile_px: int | None = Field(
        None, description="Side of the labelled tiles, native pixels; none: as registered."
    )
    sections: tuple[str, ...] = Field(description="Test sections with masks.")
    groups: tuple[str, ...] = Field(description="Volume or block of each test section.")
    confusions: tuple[tuple[tuple[int, ...], ...], ...] = Field(
        description="Of each test section: pixels, rows truth, columns prediction."
    )
    selected_by: str = Field(description="What chose the weights: target_val, source_val, last.")
    selected_step: int = Field(description="Step of the stage that was trained last.")
    style_selected_by: str | None = Field(
        None, description="What chose the generator; none for a row without one."
    )
    num_labels: int = Field(
        description="Target images with image-level labels that were used, those of the test "
        "among them where they filter the prediction."
    )
    num_masks: int = Field(description="Target masks that training used.")
    peak_memory_bytes: int = Field(description="Of the job's process; GPU memory on a GPU.")


class RowResult(RowScores):
    """With what it took; the memory is the most of all jobs that trained for it or tested it."""

    seconds: float = Field(description="Of training that this row needs, shared stages included.")
    own_seconds: float = Field(description="Of the job that made it, shared stages left out.")


class FailedRow(FrozenConfig):
    """A row without a result on a fold, and why."""

    row: RowName
    fold: int
    tile_px: int | None = None
    reason: str


class Spread(FrozenConfig):
    """Of a score in [0, 1] over the folds; ``None`` where a fold's test masks lack the class."""

    per_fold: tuple[float | None, ...]
    mean: float | None
    std: float | None = Field(description="Over the folds that have it, divided by their number.")


class RowSummary(FrozenConfig):
    """A row over all its folds."""

    row: RowName
    title: str
    tile_px: int | None = None
    folds: tuple[int, ...]
    dice: dict[str, Spread] = Field(description="Of each class, and of their mean as ``mean``.")
    selected: tuple[str, ...] = Field(description="What chose the weights, of each fold.")
    steps: tuple[int, ...] = Field(description="Of the weights that were chosen, of each fold.")
    styles_selected: tuple[str | None, ...] = Field(
        description="What chose the generator, of each fold; none where there is none."
    )
    num_labels: float = Field(description="Mean over the folds.")
    num_masks: float
    seconds: float
    own_seconds: float
    peak_memory_bytes: int = Field(description="The most of any fold.")


class Difference(FrozenConfig):
    """Mean DICE of ``row`` less that of ``than``: paired bootstrap over test sections."""

    row: RowName
    than: RowName
    mean: float
    low: float = Field(description="2.5th percentile.")
    high: float = Field(description="97.5th percentile.")
    standard_error: float


class LabelValue(FrozenConfig):
    """What labels of tiles of a size bring: the filter on against off."""

    tile_px: int
    num_labels: float
    with_filter: Spread
    without_filter: Spread
    low: float | None = Field(
        description="2.5th percentile of the gain, as of a ``Difference``; none without one."
    )
    high: float | None = Field(description="97.5th percentile.")
    labels_per_point: float | None = Field(
        description="Labels for a point (0.01) of mean DICE; none where no gain can be told."
    )


class Curve(FrozenConfig):
    """A validation score or loss over the steps of a row's stage."""

    row: RowName
    fold: int
    stage: str
    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


class StyleScore(FrozenConfig):
    """What the source-only segmenter makes of target images that a kept generator renders."""

    step: int
    dice: float | None = Field(description="Mean, on the target's validation masks.")
    label_agreement: float | None = Field(
        description="Share of the training images' labels that the prediction meets."
    )
    label_score: float | None = Field(description="That and the mean confidence; no mask needed.")


class StyleChoice(FrozenConfig):
    """The generators of a fold that were scored, and which rule chose the one that was kept."""

    fold: int
    selected_by: str
    scores: tuple[StyleScore, ...] = Field(description="In the order of their steps.")

    def best(self, by: Literal["dice", "label_score"]) -> StyleScore | None:
        """The generator of the highest score, the earliest of several; None without such scores."""
        scored = [score for score in self.scores if getattr(score, by) is not None]
        return max(scored, key=lambda score: float(getattr(score, by)), default=None)


class SharedStage(FrozenConfig):
    """A stage that several rows use and that was trained once."""

    stage: str
    fold: int
    seconds: float
    rows: tuple[RowName, ...]


class BenchmarkReport(FrozenConfig):
    """Everything the report shows; the JSON form of it."""

    source: str
    target: str
    class_names: tuple[str, ...]
    excluded: tuple[str, ...] = Field(description="Classes left out of the table and its means.")
    preset: PresetName
    config: StyleFilterConfig
    folds: int
    tile_px: int | None = Field(
        None, description="Side of the labelled tiles, native pixels; none: as registered."
    )
    results: tuple[RowResult, ...] = Field(
        description="What each row measured on each fold, with labels of every tile size."
    )
    rows: tuple[RowSummary, ...]
    differences: tuple[Difference, ...]
    label_values: tuple[LabelValue, ...]
    curves: tuple[Curve, ...]
    styles: tuple[StyleChoice, ...] = Field(description="Of folds whose generator was chosen.")
    shared: tuple[SharedStage, ...]
    failed: tuple[FailedRow, ...]
    notes: tuple[str, ...] = Field(
        (), description="What jobs said that the reader of the numbers must know."
    )
    seconds: float = Field(description="Of all jobs together, each stage once.")
    versions: dict[str, str]
