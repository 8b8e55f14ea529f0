"""Table 1 for a pair: results of rows and folds, their means, spreads and differences."""

from typing import Literal

from pydantic import AliasChoices, Field

from models.choice.verdict import Verdict
from models.config.base import FrozenConfig
from models.config.presets import PresetName
from models.config.stylefilter import StyleFilterConfig
from models.table1.methods import RowName
from models.table1.plan import Budget, LabelOrder


class RuleChoice(FrozenConfig):
    """The results of a row with the weights that another rule would have chosen."""

    step: int = Field(description="The step at which these weights were kept.")
    confusions: tuple[tuple[tuple[int, ...], ...], ...] = Field(
        description="As those of ``RowScores``."
    )


class RowScores(FrozenConfig):
    """The scores and costs of one row on one fold, as its job measured them."""

    row: RowName
    # Parts that ended in version 0.1.0 wrote it as ``split``.
    fold: int = Field(
        description="The number of the fold, from 0.",
        validation_alias=AliasChoices("fold", "split"),
    )
    tile_px: int | None = Field(
        None,
        description="The side of the labelled tiles, in native pixels; `null` for the tiles of the "
        "registration.",
    )
    budget: Budget | None = Field(
        None, description="A smaller annotation than that of the table; `null` for the table's."
    )
    sections: tuple[str, ...] = Field(description="The test sections with masks.")
    groups: tuple[str, ...] = Field(description="The volume or block of each test section.")
    confusions: tuple[tuple[tuple[int, ...], ...], ...] = Field(
        description="A matrix of pixel counts per test section; its rows are the truth, its "
        "columns the prediction."
    )
    selected_by: str = Field(
        description="The rule that chose the weights: target_val, source_val, labels or last."
    )
    selected_step: int = Field(
        description="The step of the last stage at which these weights were kept."
    )
    style_selected_by: str | None = Field(
        None, description="The rule that chose the generator; none for a row without one."
    )
    choices: dict[str, RuleChoice] = Field(
        {},
        description="The results with the weights that other rules would have chosen: those of the "
        "`last` step, the best by `labels`, and the best on the target's validation masks, "
        "`oracle`. Empty for a row that trains no network on the target, and where an earlier "
        "training was taken over.",
    )
    num_labels: int = Field(
        description="The number of labelled target tiles that were used. Tiles of test sections "
        "count if their labels filter the prediction."
    )
    num_masks: int = Field(description="The number of target masks that training used.")
    peak_memory_bytes: int = Field(
        description="The most memory that the job's process held; on a GPU, the GPU's memory."
    )


class RowResult(RowScores):
    """A row on one fold with its cost; its memory is the most of all jobs that it needed."""

    seed: int = Field(0, description="The seed of the training.")
    seconds: float = Field(
        description="The training time that the row needs, in seconds, with shared stages."
    )
    own_seconds: float = Field(
        description="The training time of the row's own job, in seconds, without shared stages."
    )


class FailedRow(FrozenConfig):
    """A row that has no result on a fold, and the reason."""

    row: RowName
    fold: int
    seed: int = 0
    tile_px: int | None = None
    budget: Budget | None = None
    reason: str


class Spread(FrozenConfig):
    """A score in [0, 1] over folds and seeds; ``None`` where the test masks lack the class."""

    per_fold: tuple[float | None, ...] = Field(
        description="The score of each training: for each fold, of each seed."
    )
    mean: float | None
    std: float | None = Field(
        description="The standard deviation over the trainings with a score (divided by their "
        "number)."
    )
    seed_std: float | None = Field(
        None,
        description="The standard deviation between the seeds of a fold, pooled over the folds "
        "(divided by the number of seeds less one); `null` with one seed.",
    )
    seed_range: float | None = Field(
        None, description="The largest difference between two seeds on one fold."
    )


class RowSummary(FrozenConfig):
    """A row over all its trainings: its folds, and in each fold its seeds."""

    row: RowName
    title: str
    tile_px: int | None = None
    folds: tuple[int, ...] = Field(description="The fold of each training, with repetitions.")
    seeds: tuple[int, ...] = Field(description="The seed of each training.")
    dice: dict[str, Spread] = Field(
        description="DICE of each class, and the mean over the classes as ``mean``."
    )
    selected: tuple[str, ...] = Field(
        description="The rule that chose the weights, for each training."
    )
    steps: tuple[int, ...] = Field(description="The step of the chosen weights, for each training.")
    choices: dict[str, Spread] = Field(
        {},
        description="Mean DICE with the weights that the rules `last`, `labels` and `oracle` "
        "choose; a rule is left out if a training has no result for it.",
    )
    styles_selected: tuple[str | None, ...] = Field(
        description="The rule that chose the generator, for each training; none for a row without "
        "one."
    )
    num_labels: float = Field(description="The mean over the trainings.")
    num_masks: float
    seconds: float
    own_seconds: float
    peak_memory_bytes: int = Field(description="The most of any training.")

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """The fold and the seed of each training."""
        return tuple(zip(self.folds, self.seeds, strict=True))


class Difference(FrozenConfig):
    """Mean DICE of ``row`` less mean DICE of ``than``, with an interval by a paired bootstrap."""

    row: RowName
    than: RowName
    mean: float
    low: float = Field(description="The 2.5th percentile of the bootstrap.")
    high: float = Field(description="The 97.5th percentile of the bootstrap.")
    standard_error: float


class LabelValue(FrozenConfig):
    """The gain that labels of tiles of one size bring: DICE with the filter and without it."""

    tile_px: int
    num_labels: float
    with_filter: Spread
    without_filter: Spread
    low: float | None = Field(
        description="The 2.5th percentile of the gain, as in ``Difference``; `null` without an "
        "interval."
    )
    high: float | None = Field(description="The 97.5th percentile of the gain.")
    labels_per_point: float | None = Field(
        description="The number of labels for each point (0.01) of mean DICE; `null` if the gain "
        "may be chance."
    )


class AnnotationValue(FrozenConfig):
    """A row with a certain annotation of the target, compared with source-only, which needs none.

    A person takes 3 seconds for the labels of a tile, or for a point, and 30 minutes for a mask:
    these numbers are assumptions. A point labels its tile, so the tiles stand for the points.
    """

    row: RowName
    tile_px: int | None
    order: LabelOrder = Field("random", description="The way in which the tiles were picked.")
    num_labels: float = Field(description="The mean number of labelled training tiles.")
    num_masks: float
    num_points: int = Field(0, description="The number of points that were asked for.")
    minutes: float = Field(description="The minutes that a person takes for this annotation.")
    dice: Spread = Field(description="Mean DICE.")
    gain: float = Field(description="Mean DICE less that of source-only.")
    low: float | None = Field(
        description="The 2.5th percentile of the gain, as in ``Difference``; `null` without an "
        "interval."
    )
    high: float | None = Field(description="The 97.5th percentile of the gain.")
    points_per_minute: float | None = Field(
        description="Points of DICE (0.01) for each minute; `null` without annotation."
    )


class Curve(FrozenConfig):
    """A validation score or loss over the steps of a row's stage."""

    row: RowName
    fold: int
    seed: int = 0
    stage: str
    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


class StyleScore(FrozenConfig):
    """The scores of the source-only segmenter on target images that a generator stylised."""

    step: int
    dice: float | None = Field(description="The mean DICE on the target's validation masks.")
    label_agreement: float | None = Field(
        description="The share of the training tiles' labels that the prediction agrees with."
    )
    label_probability: float | None = Field(
        None,
        description="The probability that the prediction gives to these labels, from 0 to 1: a "
        "mean in which each class and each of its two labels has the same weight.",
    )
    label_score: float | None = Field(
        None,
        description="The agreement plus the mean confidence, by which earlier versions chose.",
    )


class StyleChoice(FrozenConfig):
    """The generators of a fold that were scored, and the rule that chose one of them."""

    fold: int
    seed: int = 0
    selected_by: str
    scores: tuple[StyleScore, ...] = Field(description="In the order of their steps.")

    def best(self, by: Literal["dice", "label_probability"]) -> StyleScore | None:
        """Return the earliest generator with the highest score; None if no generator has one."""
        scored = [score for score in self.scores if getattr(score, by) is not None]
        return max(scored, key=lambda score: float(getattr(score, by)), default=None)


class JudgedCell(FrozenConfig):
    """The verdict of a method that lets labels choose, on one fold with one seed."""

    row: RowName
    fold: int
    seed: int
    tile_px: int | None
    budget: Budget | None = None
    verdict: Verdict = Field(description="All candidates, with DICE on the test masks.")


class VerdictCheck(FrozenConfig):
    """Verdicts against the truth: each compares a candidate with source-only.

    The first three count the candidates whose mean DICE on the test masks truly differs from that
    of source-only by more than 0.01.
    """

    rightly: int = Field(description="The labels told the difference, with the right sign.")
    wrongly: int = Field(description="The labels told a difference of the other sign.")
    left_open: int = Field(description="The labels could tell no difference.")
    small: int = Field(description="The candidates that differ by 0.01 or less.")
    mean_regret: float = Field(
        description="The mean DICE of the best candidate less that of the chosen one, mean over "
        "the verdicts."
    )
    most_regret: float = Field(description="The largest of these.")


class SharedStage(FrozenConfig):
    """A stage that was trained once and that several rows use."""

    stage: str
    fold: int
    seed: int = 0
    seconds: float
    rows: tuple[RowName, ...]


class BenchmarkReport(FrozenConfig):
    """All contents of the report, as its JSON file holds them."""

    source: str
    target: str
    class_names: tuple[str, ...]
    excluded: tuple[str, ...] = Field(
        description="The classes that the table and its means leave out."
    )
    preset: PresetName
    config: StyleFilterConfig
    folds: int
    seeds: tuple[int, ...] = (0,)
    tile_px: int | None = Field(
        None,
        description="The side of the labelled tiles, in native pixels; `null` for the tiles of the "
        "registration.",
    )
    results: tuple[RowResult, ...] = Field(
        description="The results of each row on each fold, with labels of every tile size."
    )
    rows: tuple[RowSummary, ...]
    differences: tuple[Difference, ...]
    label_values: tuple[LabelValue, ...]
    annotation_values: tuple[AnnotationValue, ...] = ()
    curves: tuple[Curve, ...]
    styles: tuple[StyleChoice, ...] = Field(
        description="The folds whose generator was chosen by a score."
    )
    shared: tuple[SharedStage, ...]
    verdicts: tuple[JudgedCell, ...] = ()
    verdict_check: VerdictCheck | None = None
    failed: tuple[FailedRow, ...]
    notes: tuple[str, ...] = Field(
        (), description="Remarks of the jobs that a reader of the numbers must know."
    )
    seconds: float = Field(
        description="The time of all jobs together, in seconds; a shared stage counts once."
    )
    versions: dict[str, str]
