"""Prefer, among candidates that labels cannot tell apart, the one that changes the least."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from models.choice.label_scores import Evidence

K = TypeVar("K")


def prudent_first(
    found: Mapping[K, Evidence], base: Evidence, changes: Callable[[K], float]
) -> list[K]:
    """Return candidates in the order in which to prefer them; all evidence is of the same tiles.

    First come those that are better than ``base``, that of the source-only segmenter, by more than
    chance, and that the labels cannot tell from the one with the lowest loss, because the interval
    of the difference holds 0. Of these the one with the fewest ``changes`` is at the start. Then
    come the others by their loss. The lowest of several losses is low by luck, too. And labels do
    not see all that a change costs: a class that is drawn too large has a lower loss than one that
    is drawn as it is.
    """
    by_loss = sorted(found, key=lambda each: found[each].loss() or 0.0)
    alike = [
        each
        for each in by_loss
        if _told_better(found[each], base) and not _told_better(found[by_loss[0]], found[each])
    ]
    others = [each for each in by_loss if each not in alike]
    return sorted(alike, key=changes) + others


def _told_better(one: Evidence, other: Evidence) -> bool:
    gain = one.gain_over(other)
    return gain is not None and gain.low > 0
