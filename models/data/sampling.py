"""The section and the random numbers of each sample of a run.

Every draw is a function of the seed, the stage and a position, never of earlier draws. Therefore a
run resumes from its step alone, a thread can prepare batches ahead, and processes that share a
batch each derive their part without talking.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from models.data.sections import Section
from models.training.progress import Stage

# The place of a name is part of the seed: a new one goes to the end.
Purpose = Literal["source", "target", "step", "statistics"]
_SAMPLE, _ORDER = range(2)


def stream(seed: int, stage: Stage, purpose: Purpose, position: int) -> np.random.Generator:
    """Return the generator of random numbers for one position of a stage."""
    return np.random.default_rng([*_key(seed, stage, purpose), _SAMPLE, position])


@dataclass(frozen=True)
class Sample:
    """A section to crop, and the random numbers to do it with."""

    section: Section
    rng: np.random.Generator


class Sampler:
    """The samples of a domain: endless passes over its sections, each in a fresh random order.

    With ``replacement`` each sample's section is drawn independently (CUT's second domain).
    """

    def __init__(
        self, sections: Sequence[Section], seed: int, stage: Stage, purpose: Purpose
    ) -> None:
        self._sections = sections
        self._stream = (seed, stage, purpose)
        # A batch may reach into the next pass, and is drawn ahead of its step.
        self._order = lru_cache(maxsize=4)(self._draw_order)

    def batch(
        self, step: int, size: int, *, part: int = 0, parts: int = 1, replacement: bool = False
    ) -> list[Sample]:
        """Return ``size`` samples of a step (from 1), those of process ``part`` among ``parts``."""
        first = ((step - 1) * parts + part) * size
        return [self._sample(first + i, replacement) for i in range(size)]

    def _sample(self, position: int, replacement: bool) -> Sample:
        rng, num = stream(*self._stream, position), len(self._sections)
        if replacement:
            return Sample(self._sections[int(rng.integers(num))], rng)
        return Sample(self._sections[self._order(position // num)[position % num]], rng)

    def _draw_order(self, number: int) -> Sequence[int]:
        rng = np.random.default_rng([*_key(*self._stream), _ORDER, number])
        order: list[int] = rng.permutation(len(self._sections)).tolist()
        return order


def _key(seed: int, stage: Stage, purpose: Purpose) -> tuple[int, int, int]:
    return seed, get_args(Stage).index(stage), get_args(Purpose).index(purpose)
