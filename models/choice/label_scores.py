"""Score predictions by image-level labels, and by masks where some may be used; free of torch.

A label says whether a class is in a tile. The main score asks how much probability a prediction
gives to the labels; the other scores count tiles. Mean confidence and entropy are no scores here:
they put a network first that finds nothing.

Legend: T labelled tiles, C classes, U units of the bootstrap, R resamples, H height, W width. The
last axis of (..., C, 2) is the label: 0 for tiles that it calls absent, 1 for present.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.choice.bootstrap import redrawn
from models.choice.mask_scores import MaskEvidence, MaskPart
from models.choice.point_scores import Row, rows_of_points
from models.choice.steadiness import Predict, Steadiness
from models.choice.verdict import Interval
from models.data.domain import Domain
from models.data.labels import ABSENT, PRESENT, UNKNOWN, class_pixels
from models.data.sections import Section

COVERED = 0.01
"""The least share of a tile that a class has to cover to count as found there.

One pixel is chance. In a scratch experiment with about 100 networks, the agreement with labels had
a rank correlation with DICE of 0.78 when one pixel counted, and of 0.89 with this share."""

TOP_SHARE = 0.03
"""The share of a tile's pixels whose mean probability stands for "the class is in the tile"."""

FEW_TILES = 60
"""With fewer labelled tiles, the labels alone choose worse than with ``consistency`` beside them.

In a scratch experiment 30 tiles chose among ten networks on four targets. The chosen network's IoU
was 3.9 points below the best one's on average, and 2.5 points with consistency."""

LEAST_TILES = 5
"""The fewest tiles that call a class present, and absent, with which the class is judged."""

_CLIP = 0.01  # one wrong label may cost no more than -log(0.01), whatever the confidence
_LEAST_SECTIONS = 5  # fewer cannot be drawn again: then runs of neighbouring tiles are
_MOST_UNITS = 500

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """Tells what one prediction says of each labelled tile.

    ``labels`` (T, C) are -1 (unknown), 0 (absent) or 1 (present). ``shares`` (T, C) is the share
    of the tile's pixels that are predicted as the class, and ``peaks`` (T, C) the mean probability
    of the class over the 3 % of the tile's pixels where it is highest; both are in [0, 1].
    ``sections`` (T,) holds the index of each tile's section. ``consistency`` in [0, 1] tells how
    alike the predictions of rotated and of noisy images are; None if it was not measured. A point
    counts like a tile, and ``is_point`` (T,) tells which those are; None if there are no points.
    ``masks`` compares the prediction with masks, which decide if they are there: presence in a tile
    says nothing of an outline.
    """

    labels: NDArray[np.int64]
    shares: NDArray[np.float64]
    peaks: NDArray[np.float64]
    sections: NDArray[np.int64]
    consistency: float | None = None
    masks: MaskEvidence | None = None
    is_point: NDArray[np.bool_] | None = None

    def of(self, tiles: NDArray[np.bool_]) -> Self:
        """Return the evidence of some tiles alone; ``tiles`` is bool (T,)."""
        arrays = ("labels", "shares", "peaks", "sections")
        points = None if self.is_point is None else self.is_point[tiles]
        some = {name: getattr(self, name)[tiles] for name in arrays}
        return replace(self, is_point=points, **some)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of tiles with each label, (C, 2)."""
        return np.asarray(self._known.sum(axis=0))

    @property
    def judged(self) -> NDArray[np.bool_]:
        """The classes with enough tiles that call them present, and absent: bool (C,)."""
        return np.asarray((self.counts >= LEAST_TILES).all(axis=1))

    @property
    def by_masks(self) -> bool:
        """Tell whether masks, and not labels of tiles, compare this prediction with others."""
        return self.masks is not None and self.masks.tells

    @property
    def decides(self) -> bool:
        """Tell whether there are masks, or enough labels of a class, to compare predictions by."""
        return self.by_masks or bool(self.judged.any())

    @property
    def errors(self) -> NDArray[np.int64]:
        """The number of tiles whose label is not met, (C, 2): claims, then misses."""
        return np.asarray(self._wrong.sum(axis=0))

    def loss(self) -> float | None:
        """Return the log-loss of the labels, or 1 less mean DICE if masks decide; None without any.

        A tile called present costs -log(peak), one called absent -log(1 - peak). Each class and
        each of its two labels has the same weight, so that a rare class counts as much as others,
        and a network that never finds it pays; a mean over fewer than five tiles weighs less. With
        fewer than ``FEW_TILES`` tiles -log(consistency) is added, if it was measured.
        """
        if self.masks is not None and self.by_masks:
            return self.masks.loss()
        if not len(self.labels):
            return None
        of_cells = _loss(self._losses.sum(axis=0).ravel(), self.counts.ravel())
        return float(of_cells) + self._unstable

    def balanced_accuracy(self) -> NDArray[np.float64]:
        """Return the mean share of present and of absent tiles that are met, (C,).

        NaN stands for a class without tiles of both labels.
        """
        counts = self.counts.astype(np.float64)
        met = np.full(counts.shape, np.nan)
        np.divide(counts - self.errors, counts, out=met, where=counts > 0)
        return np.asarray(met.mean(axis=1))

    def f1(self) -> NDArray[np.float64]:
        """Return F1 of the tiles that a class is found in, (C,); NaN if no tile calls it present.

        F1 is 2TP / (2TP + FP + FN), counted in tiles.
        """
        (claims, misses), present = self.errors.T, self.counts[:, 1]
        hits = present - misses
        scores = np.full(len(present), np.nan)
        np.divide(2 * hits, 2 * hits + claims + misses, out=scores, where=present > 0)
        return scores

    def area(self) -> NDArray[np.float64]:
        """Return the mean predicted share of the tiles that are called present, (C,); else NaN.

        Presence cannot see a structure that is found but drawn too small; the mean share of the
        source's tiles that hold the class says how much there should be.
        """
        present = self._known[..., 1] & ~self._points[:, None]
        means = np.full(present.shape[1], np.nan)
        total = np.where(present, self.shares, 0).sum(axis=0)
        np.divide(total, present.sum(axis=0), out=means, where=present.any(axis=0))
        return means

    def gain_over(self, other: "Evidence", seed: int = 0) -> Interval | None:
        """Return how much lower this loss is than that of another prediction of the same tiles.

        The interval is a paired bootstrap (Efron and Tibshirani 1993): the labelled sections are
        drawn again 1,000 times, the same ones for both. Of fewer than five sections runs of
        neighbouring tiles are drawn; these are more alike than sections, so the interval is then
        somewhat too short. None without labels.

        Raises:
            ValueError: the two are not of the same tiles.
        """
        if not np.array_equal(self.labels, other.labels):
            raise ValueError(
                f"evidence of {len(self.labels)} and of {len(other.labels)} tiles with other "
                "labels cannot be compared: gather both from the same tiles"
            )
        if self.masks is not None and other.masks is not None and self.by_masks:
            return self.masks.gain_over(other.masks, seed)
        if not len(self.labels):
            return None
        drawn = redrawn(int(self._units.max()) + 1, seed)
        known = drawn @ self._by_unit(self._known)
        own, others = (_loss(drawn @ self._by_unit(e._losses), known) for e in (self, other))
        steadier = other._unstable - self._unstable
        low, high = np.quantile(others - own, [0.025, 0.975])
        return Interval(
            value=(other.loss() or 0) - (self.loss() or 0),
            low=float(low) + steadier,
            high=float(high) + steadier,
        )

    def interval(self, seed: int = 0) -> Interval | None:
        """Return the loss with its interval, by the bootstrap of ``gain_over``.

        None without labels. Of the same tiles, ``gain_over`` tells two predictions apart better.
        """
        if not len(self.labels):
            return None
        drawn = redrawn(int(self._units.max()) + 1, seed)
        losses = _loss(drawn @ self._by_unit(self._losses), drawn @ self._by_unit(self._known))
        low, high = np.quantile(losses, [0.025, 0.975])
        return Interval(
            value=self.loss() or 0,
            low=float(low) + self._unstable,
            high=float(high) + self._unstable,
        )

    @property
    def num_tiles(self) -> int:
        """The number of tiles, without points."""
        return int((~self._points).sum())

    @property
    def _points(self) -> NDArray[np.bool_]:
        return np.zeros(len(self.labels), bool) if self.is_point is None else self.is_point

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        """Tell which label each tile has, (T, C, 2); neither where it is unknown."""
        return np.stack([self.labels == ABSENT, self.labels == PRESENT], axis=-1)

    @cached_property
    def _wrong(self) -> NDArray[np.bool_]:
        found = self.shares >= COVERED
        wrong: NDArray[np.bool_] = self._known & np.stack([found, ~found], axis=-1)
        return wrong

    @cached_property
    def _losses(self) -> Counts:
        """The loss of each tile and class, (T, C, 2)."""
        peaks = self.peaks.clip(_CLIP, 1 - _CLIP)
        losses: Counts = -np.log(np.stack([1 - peaks, peaks], axis=-1))
        return np.where(self._known, losses, 0)

    @property
    def _unstable(self) -> float:
        if self.consistency is None or len(self.labels) >= FEW_TILES:
            return 0.0
        return -float(np.log(max(self.consistency, _CLIP)))

    @cached_property
    def _units(self) -> NDArray[np.intp]:
        """Return the unit of the bootstrap that each tile belongs to, (T,)."""
        found, unit = np.unique(self.sections, return_inverse=True)
        if len(found) >= _LEAST_SECTIONS:
            return unit
        tiles = len(self.sections)
        return np.arange(tiles) * min(tiles, _MOST_UNITS) // tiles

    def _by_unit(self, values: NDArray[np.generic]) -> Counts:
        """Add up values (T, C, 2) by unit: (U, C * 2)."""
        units = self._units
        flat = values.reshape(len(units), -1).astype(np.float64)
        sums = np.zeros((int(units.max()) + 1, flat.shape[1]))
        np.add.at(sums, units, flat)
        return sums


def gather(
    predict: Predict,
    target: Domain,
    sections: Iterable[Section],
    *,
    steadiness: bool = False,
    masks: Sequence[MaskPart] = (),
) -> Evidence:
    """Predict sections once each, and return what is said of their tiles and points, and ``masks``.

    If ``steadiness``, ``consistency`` is measured too, by two more predictions of each section:
    of the section turned by 90 degrees, and of it with contrast 0.8 and noise of 0.05.
    """
    steady = Steadiness(target.num_classes) if steadiness else None
    evidence = gather_all(predict, target, sections, steady, points=True)
    evidence = evidence.of((evidence.labels != UNKNOWN).any(axis=1))
    evidence = replace(evidence, masks=_of_masks(predict, target, masks))
    if steady is None:
        return evidence
    wanted = (evidence.labels == PRESENT).any(axis=0)
    return replace(evidence, consistency=steady.of(wanted))


def gather_all(
    predict: Predict,
    target: Domain,
    sections: Iterable[Section],
    steady: Steadiness | None = None,
    *,
    points: bool = False,
) -> Evidence:
    """Predict sections once each, and return the evidence of all of their tiles, labelled or not.

    The tiles of a section come in their order, without those that have no pixel at the working
    size. ``steady``, if it is given, is shown each section. If ``points``, the points of sections
    count like tiles.
    """
    rows: list[tuple[*Row, int, bool]] = []
    for section in sections:
        image, tiles = target.image(section), target.tile_windows(section)
        probabilities = predict(image)
        predicted = probabilities.argmax(axis=0)
        if steady is not None:
            steady.add(predict, image, predicted)
        for (y0, y1, x0, x1), labels in zip(tiles.edges, tiles.labels, strict=True):
            inside = predicted[y0:y1, x0:x1]
            if inside.size:
                share = class_pixels(inside, target.num_classes) / inside.size
                peak = _peaks(probabilities[:, y0:y1, x0:x1])
                rows.append((labels, share, peak, section.index, False))
        of_points = rows_of_points(probabilities, target, section) if points else []
        rows += [(*row, section.index, True) for row in of_points]
    labels, shares, peaks, index, pointed = zip(*rows, strict=True) if rows else ((),) * 5
    return Evidence(
        labels=np.array(labels, np.int64).reshape(-1, target.num_classes),
        shares=np.array(shares, np.float64).reshape(-1, target.num_classes),
        peaks=np.array(peaks, np.float64).reshape(-1, target.num_classes),
        sections=np.array(index, np.int64),
        is_point=np.array(pointed, bool) if any(pointed) else None,
    )


def _of_masks(predict: Predict, target: Domain, masks: Sequence[MaskPart]) -> MaskEvidence | None:
    if not masks:
        return None
    confusions = [
        block
        for part in masks
        for block in part.compared(target, predict(target.image(part.section)).argmax(axis=0))
    ]
    return MaskEvidence(np.array(confusions))


def _peaks(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean of the highest 3 % of pixels, at least one, of each class: (C,)."""
    flat = probabilities.reshape(len(probabilities), -1)
    top = max(1, round(TOP_SHARE * flat.shape[1]))
    means: NDArray[np.float64] = np.partition(flat, -top, axis=1)[:, -top:].mean(axis=1)
    return means.astype(np.float64)


def _loss(losses: Counts, counts: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the mean of the classes' mean losses, (...,), of sums and counts (..., C * 2)."""
    number = counts.astype(np.float64)
    means = np.zeros(losses.shape)
    np.divide(losses, number, out=means, where=number > 0)
    weights = np.minimum(1, number / LEAST_TILES)
    # A draw may miss all tiles.
    return np.asarray((weights * means).sum(axis=-1) / weights.sum(axis=-1).clip(min=1e-12))
