"""The figures that ``models.speed.measure`` writes and the command line shows; torch-free."""

import statistics
from collections.abc import Sequence
from typing import Self

from models.config import Precision
from models.frozen_config import FrozenConfig


class Timing(FrozenConfig):
    """Seconds of a step (median, least and most), and the peak memory of its process, bytes."""

    median: float
    least: float
    most: float
    peak_bytes: int

    @classmethod
    def of(cls, seconds: Sequence[float], peak_bytes: int) -> Self:
        """Summarise the seconds of some steps."""
        return cls(
            median=statistics.median(seconds),
            least=min(seconds),
            most=max(seconds),
            peak_bytes=peak_bytes,
        )


class StyleResult(FrozenConfig):
    """A CUT step, and the reference's if it was measured beside it.

    ``gflop`` is what convolutions and matrix products take by definition, ``gflop_done`` what our
    step does of it. The fractions are these per second, of the machine's float32 matrix product.
    """

    case: str
    precision: Precision
    step: Timing
    gflop: float
    gflop_done: float
    fraction_of_peak: float
    fraction_done: float
    reference: Timing | None
    speedup: float | None
    memory_ratio: float | None


class StageResult(FrozenConfig):
    """A step of pre-training or adaptation as users run it, with its data.

    ``step`` is one of the last, when every section was read before; ``first_seconds`` the median
    of the first, most of whose sections are read from disk. ``wait_share`` is the share of the time
    in which training waits for data.
    """

    case: str
    step: Timing
    first_seconds: float
    wait_share: float
    generator_passes: int


class Growth(FrozenConfig):
    """The cost of a step on many sections, as a multiple of the cost on few."""

    seconds: float
    first_seconds: float
    peak_bytes: float


class Machine(FrozenConfig):
    """The processor that was measured; ``matrix_gflops`` are those of its matrix products."""

    cores: int | None
    threads: int
    torch: str
    instructions: str
    has_bf16: bool
    matrix_gflops: dict[Precision, float]


class Figures(FrozenConfig):
    """All figures of one run: ``steps`` were timed of each CUT case."""

    machine: Machine
    steps: int
    style: tuple[StyleResult, ...]
    stages: tuple[StageResult, ...]
    large_to_small: dict[str, Growth]
