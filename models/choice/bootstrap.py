"""The bootstrap (Efron and Tibshirani 1993) by which scores get intervals; free of torch."""

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000


def redrawn(number: int, seed: int) -> NDArray[np.float64]:
    """Draw ``number`` units again, 1,000 times: (1000, number), how often each was drawn."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
    return drawn.astype(np.float64)
