"""The order in which a target's tiles are best labelled; free of torch.

A label tells most where several candidates, that is, ways to segment the target, disagree whether
the class is there. Classes that few labels call present come first, and tiles far from each other.
But disputed tiles are no fair sample of all tiles, and the losses of candidates are means over the
labelled ones. So every second tile is drawn at random. In a scratch experiment ten untrained
candidates were chosen among on two pairs (larva to larva, larva to mouse). The loss, by all labels,
of the chosen one was above the best one's by these means of 60 runs:

    labels    random tiles   disputed tiles   every second one
    16        .017, .008     .013, .002       .014, .003
    32        .010, .001     .047, .020       .013, .001
    64        .001, .001     .005, .001       .004, .001

Without candidates nothing is known of the tiles but place and grey values: then the first tiles are
spread over the sections and over the grey values.

Legend: T tiles, C classes, K candidates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data.labels import ABSENT, PRESENT, UNKNOWN

_NEAR = 1.5
"""Tiles whose centres are no more than this many sides apart along both axes are neighbours."""

_CLIP = 1e-6


@dataclass(frozen=True)
class TilesToOrder:
    """Tells what is known of a target's tiles.

    ``sections`` (T,) holds the index of each tile's section, ``centres`` (T, 2) the y and x of its
    centre in native pixels, and ``sides`` (T, 2) its height and width. ``labels`` (T, C) are -1
    (unknown), 0 (absent) or 1 (present). ``presence`` (K, T, C) is the probability, by each
    candidate, that the class is in the tile; NaN for a tile that was not looked at, and K may be 0.
    ``grey`` (T, G) holds numbers that describe the grey values of each tile; NaN if not known.
    """

    sections: NDArray[np.int64]
    centres: NDArray[np.float64]
    sides: NDArray[np.float64]
    labels: NDArray[np.int64]
    presence: NDArray[np.float64]
    grey: NDArray[np.float64] | None = None

    @property
    def unlabelled(self) -> NDArray[np.bool_]:
        """Tell for each tile, (T,), whether the label of no class is known."""
        return np.asarray((self.labels == UNKNOWN).all(axis=1))

    @property
    def looked_at(self) -> NDArray[np.bool_]:
        """Tell for each tile, (T,), whether two candidates or more have been asked about it."""
        if len(self.presence) < 2:
            return np.zeros(len(self.labels), dtype=bool)
        return np.asarray(~np.isnan(self.presence).any(axis=(0, 2)))


@dataclass(frozen=True)
class Pick:
    """A tile to label: its ``number`` among all tiles, and what a label of it would tell.

    ``told`` is the sum over the classes, in bits; None for a tile that no candidate looked at.
    ``by_class`` (C,) holds the parts of the sum, and ``presence`` (C,) the mean probability that
    the class is there.
    """

    number: int
    told: float | None
    by_class: NDArray[np.float64] | None = None
    presence: NDArray[np.float64] | None = None


def order(tiles: TilesToOrder, limit: int) -> list[Pick]:
    """Return up to ``limit`` unlabelled tiles, the one to label first at the start.

    First come tiles that candidates have looked at: in turn one by ``disagreement`` times the
    weight of the class's rarer label, and one that is drawn, with a fixed seed, from the sections
    with the fewest picks. Each pick counts as the labels that are expected of it, and lowers the
    weight of the other tiles of its section: to a half, a third, and so on. Then come the others,
    spread over sections, places and grey values. In both parts no tile is next to an earlier one of
    its section, as long as there are others.
    """
    picks = _told(tiles, limit)
    return picks + _spread(tiles, [pick.number for pick in picks], limit - len(picks))


def disagreement(presence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a label would tell about which candidate is right, (T, C), in bits.

    It is the entropy of the candidates' mean probability less the mean of their entropies: 0 where
    all say the same, even if all are unsure, and 1 if half of them are sure of each label.
    ``presence`` is (K, T, C).
    """
    told = _entropy(presence.mean(axis=0)) - _entropy(presence).mean(axis=0)
    return np.asarray(told.clip(min=0))


def _entropy(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    sure = probability.clip(_CLIP, 1 - _CLIP)
    entropy: NDArray[np.float64] = -sure * np.log2(sure) - (1 - sure) * np.log2(1 - sure)
    return entropy


def _told(tiles: TilesToOrder, limit: int) -> list[Pick]:
    """Return tiles by what their labels would tell, one after the other."""
    open_ = tiles.unlabelled & tiles.looked_at
    if not open_.any():
        return []
    numbers = np.flatnonzero(open_)
    presence = tiles.presence[:, numbers].mean(axis=0)
    told = disagreement(tiles.presence[:, numbers])
    # With one more, so that the first label of a class has no endless weight.
    counts = 1.0 + np.stack([(tiles.labels == state).sum(axis=0) for state in (ABSENT, PRESENT)])
    places = _Places(tiles, numbers)
    rng = np.random.default_rng(0)
    picks: list[Pick] = []
    while len(picks) < min(limit, len(numbers)):
        # Losses are means over the tiles of each label, so a tile counts by the number of its like.
        weights = (1 - presence) / counts[0] + presence / counts[1]  # (T, C)
        value = (told * weights).sum(axis=1) / (1 + places.taken)
        free = places.free()
        if len(picks) % 2:
            fewest = places.taken == places.taken[free].min()
            best = int(rng.choice(np.flatnonzero(free & fewest)))
        else:
            best = int(np.where(free, value, -1).argmax())
        parts = told[best]
        picks.append(Pick(int(numbers[best]), float(parts.sum()), parts, presence[best]))
        counts += np.stack([1 - presence[best], presence[best]])
        places.take(best)
    return picks


def _spread(tiles: TilesToOrder, before: list[int], limit: int) -> list[Pick]:
    """Return tiles that nobody has looked at, each far from those that are labelled or picked.

    The next tile is of the section with the fewest labelled and picked tiles, and of several such
    sections the one that is farthest from those. In its section it is the tile whose grey values
    differ most from those of all labelled and picked tiles, else the one that is farthest away.
    """
    wanted = tiles.unlabelled & ~tiles.looked_at
    numbers = np.flatnonzero(wanted)
    places = _Places(tiles, numbers)
    done = [*np.flatnonzero(~tiles.unlabelled).tolist(), *before]
    sections, taken = np.unique(tiles.sections, return_inverse=True)
    counts = np.bincount(taken[done], minlength=len(sections)) if done else np.zeros(len(sections))
    picks: list[Pick] = []
    while len(picks) < min(limit, len(numbers)):
        free = places.free()
        choice = taken[numbers[free]]
        fewest = np.unique(choice[counts[choice] == counts[choice].min()])
        section = int(fewest[_farthest(fewest, np.flatnonzero(counts))])
        inside = np.flatnonzero(free & (taken[numbers] == section))
        best = int(inside[_most_unlike(tiles, numbers[inside], done)])
        picks.append(Pick(int(numbers[best]), None))
        done.append(int(numbers[best]))
        counts[section] += 1
        places.take(best)
    return picks


def _farthest(values: NDArray[np.intp], others: NDArray[np.intp]) -> int:
    """Return the place of the value that is farthest from the nearest other; first the middle."""
    if not len(others):
        return len(values) // 2
    return int(np.abs(values[:, None] - others).min(axis=1).argmax())


def _most_unlike(tiles: TilesToOrder, numbers: NDArray[np.intp], done: list[int]) -> int:
    """Return the place of the tile that is least like those that are done; first a middle one."""
    if tiles.grey is not None and not np.isnan(tiles.grey[numbers]).any():
        values = tiles.grey[numbers]
        known = tiles.grey[done][~np.isnan(tiles.grey[done]).any(axis=1)]
    else:
        values = tiles.centres[numbers] / tiles.sides[numbers].clip(min=1)
        here = [n for n in done if tiles.sections[n] == tiles.sections[numbers[0]]]
        known = tiles.centres[here] / tiles.sides[here].clip(min=1)
    if not len(known):
        return int(np.abs(values - np.median(values, axis=0)).sum(axis=1).argmin())
    return int(np.square(values[:, None] - known).sum(axis=-1).min(axis=1).argmax())


class _Places:
    """The places of some tiles, of which some are taken; ``taken`` counts those of each section."""

    def __init__(self, tiles: TilesToOrder, numbers: NDArray[np.intp]) -> None:
        self._sections = tiles.sections[numbers]
        self._centres, self._sides = tiles.centres[numbers], tiles.sides[numbers]
        self._open = np.ones(len(numbers), dtype=bool)
        self._apart = np.ones(len(numbers), dtype=bool)
        self.taken = np.zeros(len(numbers), dtype=np.int64)

    def free(self) -> NDArray[np.bool_]:
        """Return the open tiles that are next to no taken one, or all open ones if there is none.

        Then those that are taken later are again kept apart from each other.
        """
        if not (self._open & self._apart).any():
            self._apart[:] = True
        return self._open & self._apart

    def take(self, place: int) -> None:
        same = self._sections == self._sections[place]
        distance = np.abs(self._centres - self._centres[place])
        near = (distance <= _NEAR * np.maximum(self._sides, self._sides[place])).all(axis=1)
        self._apart &= ~(same & near)
        self._open[place] = False
        self.taken += same
