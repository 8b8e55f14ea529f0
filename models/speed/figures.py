"""The figures that ``models.speed.measure`` writes and the command line shows; free of torch."""

import statistics
from collections.abc import Sequence
from typing import Self

from models.config.base import FrozenConfig
from models.config.stages import Precision


class Timing(FrozenConfig):
    """The seconds of a step (median, least, most), and the peak memory of its process in bytes."""

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
    """The figures of a CUT step, and of the reference's step if it was measured too.

    ``gflop`` counts the operations (10^9) of convolutions and matrix products by definition,
    ``gflop_done`` those that our step does. The fractions are these numbers per second, as shares
    of the machine's float32 matrix product.
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
    """The figures of a step of pre-training or adaptation, with its data, as users run it.

    ``step`` is that of the last steps, when every section was read before. ``first_seconds`` is the
    median of the first steps, which read most sections from disk. ``wait_share`` is the share of
    the time in which training waits for data.
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
    """The processor that was measured; ``matrix_gflops`` is the speed of its matrix products."""

    cores: int | None
    threads: int
    torch: str
    instructions: str
    has_bf16: bool
    matrix_gflops: dict[Precision, float]


class Figures(FrozenConfig):
    """All figures of one run, with ``steps`` timed steps of each CUT case."""

    machine: Machine
    steps: int
    style: tuple[StyleResult, ...]
    stages: tuple[StageResult, ...]
    large_to_small: dict[str, Growth]
