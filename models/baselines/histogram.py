"""Histogram matching: a plain alternative to style transfer, which needs no training."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.data.domain import Domain

_LEVELS = 1024
_PIXELS_PER_SECTION = 2**16  # ample for a histogram, and bounds memory on large datasets


class HistogramMatch:
    """Give an image the pooled grey histogram of a source's training sections.

    An instance maps an image (H, W) float32 in [0, 1] to the same shape and range, so it can stand
    where the style transfer model stands.
    """

    def __init__(self, quantiles: NDArray[np.float32]) -> None:
        self.quantiles = quantiles

    @classmethod
    def to(cls, source: Domain) -> Self:
        """Pool the training sections of ``source`` at its working pixel size.

        Raises:
            ValueError: the source has no training sections.
        """
        sections = source.training_sections()
        pooled = np.concatenate([_spread(source.image(section)) for section in sections])
        return cls(np.quantile(pooled, _midpoints(_LEVELS)).astype(np.float32))

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Replace each grey value by the source's value of the same rank."""
        _, level, counts = np.unique(image, return_inverse=True, return_counts=True)
        # Equal values share the rank in their middle, so that they stay equal.
        ranks = (np.cumsum(counts) - counts / 2) / image.size
        matched = np.interp(ranks, _midpoints(len(self.quantiles)), self.quantiles)
        return matched.astype(np.float32)[level].reshape(image.shape)


def _spread(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take every n-th pixel of an image, so that about ``_PIXELS_PER_SECTION`` remain."""
    return image.ravel()[:: max(1, image.size // _PIXELS_PER_SECTION)]


def _midpoints(levels: int) -> NDArray[np.float64]:
    return (np.arange(levels) + 0.5) / levels
