"""Views: changes of a target image's grey values that may bring it nearer to the source.

Each view is a function of an image (H, W) float32 in [0, 1], with the same shape and range. It
needs no training, and no source when it is used: what it learnt of the source are a few numbers.

Two other changes are no views. Fourier domain adaptation needs the source's images for each new
shape of an image, and CUT's generator is a model of its own (``style_transfer.py``).
"""

import numpy as np
from numpy.typing import NDArray

from models.baselines.histogram import HistogramMatch
from models.config.choice import ViewName
from models.data.domain import Domain
from models.inference import Style
from models.metadata import ViewMeta

VIEWS: dict[ViewName, str] = {
    "raw": "image as it is",
    "inverted": "inverted image",
    "stretched": "image with stretched contrast",
    "histogram": "image with the source's grey values",
}
"""All views, in words."""

_STRETCH_PERCENTILES = (1, 99)


def fitted(name: ViewName, source: Domain) -> ViewMeta:
    """Return a view with what it needs to know of the source.

    Raises:
        ValueError: the source has no training sections.
    """
    if name != "histogram":
        return ViewMeta(name=name)
    quantiles = HistogramMatch.to(source).quantiles
    return ViewMeta(name=name, quantiles=tuple(quantiles.tolist()))


def applied(view: ViewMeta) -> Style | None:
    """Return the function of a view; None for the image as it is."""
    match view.name:
        case "raw":
            return None
        case "inverted":
            return _inverted
        case "stretched":
            return _stretched
        case "histogram":
            return HistogramMatch(np.array(view.quantiles, np.float32))


def _inverted(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(1) - image


def _stretched(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map the 1st and the 99th percentile of the image to 0 and 1; a flat image stays."""
    low, high = np.percentile(image, _STRETCH_PERCENTILES)
    if low == high:
        return image
    stretched: NDArray[np.float32] = ((image - low) / (high - low)).clip(0, 1).astype(np.float32)
    return stretched
