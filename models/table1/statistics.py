"""Summarise a benchmark's results: rows, differences, and the gain by labels; free of torch.

Legend: R resamples, S test sections, C classes of the table.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from models.table1.methods import ROWS, RowName
from models.table1.results import (
    Difference,
    LabelValue,
    RowResult,
    RowSummary,
    Spread,
)

_RESAMPLES = 2000
_POINT = 0.01

Scores = NDArray[np.float64]
"""DICE in [0, 1]; NaN where the class has no true pixel."""

_Place = tuple[int, int]
"""The fold and the seed of a result."""


def tabulate(
    results: Sequence[RowResult],
    class_names: Sequence[str],
    excluded: Collection[str],
) -> tuple[RowSummary, ...]:
    """Summarise each row over its folds, in the table's order; a row may have several tile sizes.

    DICE of a class is computed on all pixels of a fold's test sections together. ``excluded``
    classes are left out of the report and the means, but a pixel that is predicted as one of them
    is a miss of its true class.

    Raises:
        ValueError: a fold of a row is there twice, or an excluded class does not exist.
    """
    return tuple(row.summary() for row in _rows(results, class_names, excluded))


def differences(
    results: Sequence[RowResult],
    class_names: Sequence[str],
    excluded: Collection[str],
    *,
    seed: int = 0,
) -> tuple[Difference, ...]:
    """Compare each row with each that precedes it in the table, on the same test sections.

    A difference is the mean DICE of the later row less that of the earlier row. Its interval is a
    paired bootstrap (Efron and Tibshirani 1993): within each fold the test groups, or the sections
    if there is but one group, are drawn again 2,000 times, the same ones for both rows. With few
    groups the percentiles lie somewhat too close together. A pair is left out if no fold has two
    groups or two sections, because it has no interval.

    With several seeds each resample is also moved by what other seeds could change: by a draw from
    Student's t distribution, with the variance of the difference between the seeds of a fold. Two
    or three seeds are too few to be drawn again, which would make the interval too short.
    """
    rows = _rows(results, class_names, excluded, seed)
    pairs = [(row, than) for than, row in combinations(rows, 2) if row.tile_px == than.tile_px]
    found = (_difference(row, than) for row, than in pairs)
    return tuple(difference for difference in found if difference is not None)


def label_values(
    results: Sequence[RowResult],
    class_names: Sequence[str],
    excluded: Collection[str],
    tiles_px: Sequence[int],
    *,
    seed: int = 0,
) -> tuple[LabelValue, ...]:
    """Compare StyleFilter with labels of tiles of each size with itself without labels.

    They are compared on the folds that both have. Training without labels needs no tiles, so one
    such training serves every tile size.
    """
    values, kept = [], _kept(class_names, excluded)
    for tile_px in tiles_px:
        on = {_place(c): c for c in results if c.row == "stylefilter" and c.tile_px == tile_px}
        off = {_place(c): c for c in results if c.row == "unfiltered"}
        places = on.keys() & off.keys()
        if not places:
            continue
        filtered, unfiltered = (_row(its, places, kept, seed) for its in (on, off))
        gain = _difference(filtered, unfiltered)
        num_labels = filtered.average("num_labels")
        values.append(
            LabelValue(
                tile_px=tile_px,
                num_labels=num_labels,
                with_filter=filtered.spread(filtered.means),
                without_filter=unfiltered.spread(unfiltered.means),
                low=None if gain is None else gain.low,
                high=None if gain is None else gain.high,
                # A number of labels divided by a gain near zero would mean nothing.
                labels_per_point=(
                    None if gain is None or gain.low <= 0 else num_labels * _POINT / gain.mean
                ),
            )
        )
    return tuple(values)


def compared(
    results: Sequence[RowResult],
    than: Sequence[RowResult],
    class_names: Sequence[str],
    excluded: Collection[str],
) -> tuple[RowSummary, float, Difference | None] | None:
    """Compare two rows on the folds and seeds that both have; None if there are none, or no score.

    Return the first row's summary there, its mean DICE less that of the other, and this difference
    with its interval; None in its place if it has none.
    """
    both = [{_place(result): result for result in its} for its in (results, than)]
    places = both[0].keys() & both[1].keys()
    if not places:
        return None
    row, base = (_row(its, places, _kept(class_names, excluded), 0) for its in both)
    gain = float(_mean(row.means) - _mean(base.means))
    return None if np.isnan(gain) else (row.summary(), gain, _difference(row, base))


@dataclass(frozen=True)
class _Row:
    """The results of a row by fold and seed, and the classes that the table keeps.

    Legend: N results.
    """

    results: tuple[RowResult, ...]
    kept: dict[str, int]
    seed: int = 0

    @property
    def name(self) -> RowName:
        return self.results[0].row

    @property
    def tile_px(self) -> int | None:
        return self.results[0].tile_px

    @property
    def tested_on(self) -> list[tuple[object, ...]]:
        return [(_place(result), result.sections, result.groups) for result in self.results]

    @cached_property
    def dice(self) -> Scores:
        """DICE of each class, (N, C)."""
        return np.stack([_dice(self._counts(result).sum(axis=0)) for result in self.results])

    @property
    def means(self) -> Scores:
        """The mean over the classes that occur, (N,)."""
        return _mean(self.dice)

    @cached_property
    def resampled(self) -> Scores:
        """The mean over classes and results of each resample, (R,)."""
        return _mean(np.stack([self._resampled(result) for result in self.results], axis=1))

    def summary(self) -> RowSummary:
        scores = {name: self.spread(self.dice[:, n]) for n, name in enumerate(self.kept)}
        return RowSummary(
            row=self.name,
            title=ROWS[self.name].title,
            tile_px=self.tile_px,
            folds=tuple(result.fold for result in self.results),
            seeds=tuple(result.seed for result in self.results),
            dice={**scores, "mean": self.spread(self.means)},
            selected=tuple(result.selected_by for result in self.results),
            steps=tuple(result.selected_step for result in self.results),
            choices=self._choices(),
            styles_selected=tuple(result.style_selected_by for result in self.results),
            num_labels=self.average("num_labels"),
            num_masks=self.average("num_masks"),
            seconds=self.average("seconds"),
            own_seconds=self.average("own_seconds"),
            peak_memory_bytes=max(result.peak_memory_bytes for result in self.results),
        )

    def _choices(self) -> dict[str, Spread]:
        """Summarise the mean DICE by each rule that all results have."""
        named = [set(result.choices) for result in self.results]
        found = {}
        for rule in sorted(set.intersection(*named)):
            chosen = tuple(
                result.model_copy(update={"confusions": result.choices[rule].confusions})
                for result in self.results
            )
            found[rule] = self.spread(_Row(chosen, self.kept).means)
        return found

    def spread(self, scores: Scores) -> Spread:
        """Summarise scores of the results, (N,)."""
        known = scores[~np.isnan(scores)]
        of_folds = [fold for fold in self._by_fold(scores) if len(fold) > 1]
        variance, freedom = self.between_seeds(scores)
        return Spread(
            per_fold=tuple(None if np.isnan(score) else float(score) for score in scores),
            mean=float(known.mean()) if known.size else None,
            std=float(known.std()) if known.size else None,
            seed_std=float(np.sqrt(variance)) if freedom else None,
            seed_range=max((float(np.ptp(fold)) for fold in of_folds), default=None),
        )

    def between_seeds(self, scores: Scores) -> tuple[float, int]:
        """Return the variance of scores (N,) between the seeds of a fold, pooled over the folds.

        Its degrees of freedom come second; there are none with one seed.
        """
        by_fold = self._by_fold(scores)
        freedom = sum(len(fold) - 1 for fold in by_fold)
        squares = sum(float(np.square(fold - fold.mean()).sum()) for fold in by_fold)
        return (squares / freedom if freedom else 0.0), freedom

    def _by_fold(self, scores: Scores) -> list[Scores]:
        """Return the known scores of each fold that has any."""
        folds = np.array([result.fold for result in self.results])
        known = ~np.isnan(scores)
        return [scores[known & (folds == fold)] for fold in np.unique(folds[known])]

    def average(self, name: str) -> float:
        return float(np.mean([getattr(result, name) for result in self.results]))

    def _counts(self, result: RowResult) -> NDArray[np.float64]:
        """Count hits, true and predicted pixels, as (S, 3, C)."""
        confusions = np.array(result.confusions, dtype=np.float64)  # exact up to 2**53
        kept = list(self.kept.values())
        parts = (confusions.diagonal(axis1=1, axis2=2), confusions.sum(2), confusions.sum(1))
        return np.stack(parts, axis=1)[:, :, kept]

    def _resampled(self, result: RowResult) -> Scores:
        """Return the mean over classes of each resample, (R,)."""
        unit_of = _units(result)
        num_units = int(unit_of.max()) + 1
        # The seed and the fold alone decide the draws: all rows get the same ones.
        rng = np.random.default_rng([self.seed, result.fold])
        drawn = rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=_RESAMPLES)
        pooled = np.tensordot(drawn[:, unit_of].astype(np.float64), self._counts(result), axes=1)
        return _mean(_dice(pooled))  # (R, 3, C) to (R,)


def _rows(
    results: Sequence[RowResult],
    class_names: Sequence[str],
    excluded: Collection[str],
    seed: int = 0,
) -> list[_Row]:
    """Group results by row and tile size, in the table's order, tiles as registered first."""
    found: dict[tuple[RowName, int | None], dict[_Place, RowResult]] = {}
    for result in results:
        of_row = found.setdefault((result.row, result.tile_px), {})
        if _place(result) in of_row:
            raise ValueError(
                f"fold {result.fold} of {result.row!r} with seed {result.seed} is there twice"
            )
        of_row[_place(result)] = result
    order = list(ROWS)
    keys = sorted(found, key=lambda key: (order.index(key[0]), key[1] or 0))
    kept = _kept(class_names, excluded)
    return [_row(found[key], found[key], kept, seed) for key in keys]


def _row(
    results: Mapping[_Place, RowResult], places: Iterable[_Place], kept: dict[str, int], seed: int
) -> _Row:
    return _Row(tuple(results[place] for place in sorted(places)), kept, seed)


def _place(result: RowResult) -> _Place:
    return result.fold, result.seed


def _kept(class_names: Sequence[str], excluded: Collection[str]) -> dict[str, int]:
    if unknown := sorted(set(excluded) - set(class_names)):
        raise ValueError(f"{unknown[0]!r} is to be left out, but there is no class of this name")
    return {name: n for n, name in enumerate(class_names) if name not in excluded}


def _units(result: RowResult) -> NDArray[np.intp]:
    """Return the number of the group, or else of the section itself, for each section: (S,)."""
    groups = list(dict.fromkeys(result.groups))
    if len(groups) < 2:  # every resample of one group is the same
        return np.arange(len(result.sections))
    return np.array([groups.index(group) for group in result.groups])


def _dice(counts: NDArray[np.float64]) -> Scores:
    """Return DICE (..., C) of hits, true and predicted pixels (..., 3, C)."""
    hits, true, predicted = np.moveaxis(counts, -2, 0)
    scores: Scores = np.full(true.shape, np.nan)
    np.divide(2 * hits, true + predicted, out=scores, where=true > 0)
    return scores


def _mean(scores: Scores) -> Scores:
    """Return the mean over the last axis of the scores that are not NaN; NaN if all are NaN."""
    known = ~np.isnan(scores)
    total = np.where(known, scores, 0).sum(axis=-1)
    means: Scores = np.full(total.shape, np.nan)
    np.divide(total, known.sum(axis=-1), out=means, where=known.any(axis=-1))
    return means


def _difference(row: _Row, than: _Row) -> Difference | None:
    """Compare two rows; None if their test sections differ, or there is no interval or score."""
    if row.tested_on != than.tested_on or all(_units(result).max() == 0 for result in row.results):
        return None
    mean = _mean(row.means) - _mean(than.means)
    resampled = row.resampled - than.resampled
    # A resample may miss every section that has a class.
    resampled = resampled[~np.isnan(resampled)]
    if np.isnan(mean) or not resampled.size:
        return None
    variance, freedom = row.between_seeds(row.means - than.means)
    variance /= len(row.results)  # of the mean over them
    moved = resampled + np.sqrt(variance) * _other_seeds(freedom, len(resampled), row.seed)
    low, high = np.quantile(moved, [0.025, 0.975])
    return Difference(
        row=row.name,
        than=than.name,
        mean=float(mean),
        low=float(low),
        high=float(high),
        standard_error=float(np.sqrt(resampled.var() + variance)),
    )


def _other_seeds(freedom: int, number: int, seed: int) -> NDArray[np.float64]:
    """Draw from Student's t distribution; without degrees of freedom nothing is known: zeros."""
    if not freedom:
        return np.zeros(number)
    return np.random.default_rng([seed, freedom]).standard_t(freedom, size=number)
