"""The grey values of all sections: the window that becomes black and white, and the histogram.

Only pixels that are data count. Values of 8 and 16 bits are counted exactly while sections are
read. Of others the least and the largest are kept, and the stored sections are read again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from models.data.intake.padding import NoData
from models.data.readers.limits import Array

DEFAULT_PERCENTILES = (0.5, 99.5)

_STRIP_ROWS = 512  # counting takes eight bytes per pixel
_BINS = 1 << 16
_SHOWN_BINS = 256
_MIN_BINS_BETWEEN = 1000
"""The least number of bins between the ends of a window; else they are counted more finely."""

_MAX_PASSES = 6

Read = Callable[[int], tuple[Array, NDArray[np.uint8] | None]]
"""Reads a stored section and its mask by the section's index."""


@dataclass(frozen=True)
class Histogram:
    """The counts of grey values: bin n holds those from ``low + n * step`` up to the next bin."""

    low: float
    step: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class _Counts:
    """Bins of equal width over all values of interest; ``below`` counts the values before them."""

    low: float
    step: float
    counts: NDArray[np.int64]
    below: int = 0

    def place(self, percentile: float, total: int) -> int:
        """Return the bin that holds a percentile of all ``total`` values."""
        cumulative = self.below + np.cumsum(self.counts)
        # In whole numbers, so that no rounding decides.
        rank = max(1, round(1000 * percentile) * total)
        return int(np.searchsorted(100_000 * cumulative, rank))


class GreyValues:
    """Counts the grey values of sections, which all have one dtype; several threads may add."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._exact: _Counts | None = None
        self._low, self._high, self._total = np.inf, -np.inf, 0
        self._no_data: dict[int, NoData] = {}
        self._lock = Lock()

    def add(
        self, index: int, section: Array, mask: NDArray[np.uint8] | None, no_data: NoData
    ) -> None:
        """Count the pixels of a section that are data."""
        exact = section.dtype.kind in "ui" and section.dtype.itemsize <= 2
        lowest = -(1 << 8 * section.dtype.itemsize - 1) if section.dtype.kind == "i" else 0
        with self._lock:
            self._no_data[index] = no_data
            if exact and self._exact is None:
                self._exact = _Counts(lowest, 1, np.zeros(_BINS, np.int64))
        for values in _data(section, mask, no_data):
            if exact:
                self._count(values, lowest)
            else:
                self._reach(float(values.min()), float(values.max()), values.size)

    def _count(self, values: Array, lowest: int) -> None:
        counts = np.bincount(values.astype(np.int64) - lowest if lowest else values)
        with self._lock:
            assert self._exact is not None
            self._exact.counts[: counts.size] += counts
            self._total += values.size

    def _reach(self, low: float, high: float, number: int) -> None:
        with self._lock:
            self._low, self._high = min(self._low, low), max(self._high, high)
            self._total += number

    def window(self, percentiles: tuple[float, float]) -> tuple[float, float]:
        """Return the grey values at two percentiles.

        Raises:
            ValueError: nearly all pixels have one value.
        """
        counts = self._whole
        for _ in range(_MAX_PASSES):
            low, high = (counts.place(percentile, self._total) for percentile in percentiles)
            window = counts.low + low * counts.step, counts.low + high * counts.step
            if self._exact is not None or high - low >= _MIN_BINS_BETWEEN:
                break
            finer = window[0], window[1] + counts.step
            if finer == (counts.low, counts.low + _BINS * counts.step):
                break
            counts = self._counted(*finer)
        if not window[0] < window[1]:
            raise ValueError(f"nearly all pixels have the grey value {window[0]:g}: name a window")
        return window

    def histogram(self) -> Histogram:
        """Return the counts from the least to the largest value, in at most 256 bins."""
        return _shown(self._whole)

    @cached_property
    def _whole(self) -> _Counts:
        """The counts of all values; nothing is added after they were asked for."""
        return self._exact or self._counted(self._low, self._high)

    def _counted(self, low: float, high: float) -> _Counts:
        """Read all sections again, and count the values from ``low`` to ``high``."""
        step = (high - low) / _BINS
        counts, below = np.zeros(_BINS, np.int64), 0
        for index, no_data in self._no_data.items():
            for values in _data(*self._read(index), no_data):
                numbers = values.astype(np.float64)
                below += int((numbers < low).sum())
                inside = numbers[(numbers >= low) & (numbers <= high)]
                places = ((inside - low) / (step or 1)).astype(np.int64)
                counts += np.bincount(places.clip(0, _BINS - 1), minlength=_BINS)
        return _Counts(low, step, counts, below)


def section_window(
    section: Array,
    mask: NDArray[np.uint8] | None,
    no_data: NoData,
    percentiles: tuple[float, float],
) -> tuple[float, float] | None:
    """Return the grey values of one section at two percentiles; None if both are the same."""
    values = np.concatenate(list(_data(section, mask, no_data)) or [np.zeros(1)])
    low, high = np.percentile(values, percentiles, method="inverted_cdf").tolist()
    return (float(low), float(high)) if low < high else None


def _data(section: Array, mask: NDArray[np.uint8] | None, no_data: NoData) -> Iterator[Array]:
    for y0 in range(0, section.shape[0], _STRIP_ROWS):
        values = no_data.data(section, mask, slice(y0, y0 + _STRIP_ROWS))
        if values.size:
            yield values


def _shown(counts: _Counts) -> Histogram:
    """Return the histogram from the least to the largest value, in at most 256 bins."""
    used = np.flatnonzero(counts.counts)
    first, last = (int(used[0]), int(used[-1])) if used.size else (0, 0)
    together = -(-(last - first + 1) // _SHOWN_BINS)
    starts = np.arange(first, last + 1, together)
    sums = np.add.reduceat(counts.counts, starts)
    sums[-1] = counts.counts[starts[-1] : last + 1].sum()
    low = counts.low + first * counts.step
    return Histogram(float(low), float(counts.step * together), tuple(sums.tolist()))
