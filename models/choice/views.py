"""Views: changes of a target image that may bring it nearer to the source.

A view changes the grey values of an image (H, W) float32 in [0, 1], or the pixel size at which the
network sees it, or both. It needs no training, and no source when it is used: what it learnt of the
source are a few numbers.

Two other changes are no views. CUT's generator is a model of its own (``style_transfer.py``).
Fourier domain adaptation exchanges frequencies that are counted in periods per image, so their
number and their amplitudes differ with the shape of the image. A source says them only of shapes to
which its own images were brought: the images would be needed wherever the view is used.
"""

import numpy as np
from numpy.typing import NDArray

from models.baselines.histogram import HistogramMatch
from models.config.choice import ViewName
from models.data.domain import Domain
from models.inference import Style, View
from models.metadata import ViewMeta

VIEWS: dict[ViewName, str] = {
    "raw": "image as it is",
    "inverted": "inverted image",
    "stretched": "image with stretched contrast",
    "histogram": "image with the source's grey values",
    "inverted_histogram": "inverted image with the source's grey values",
}
"""All changes of grey values, in words."""

_STRETCH_PERCENTILES = (1, 99)


def fitted(name: ViewName, source: Domain, pixel_factor: float = 1.0) -> ViewMeta:
    """Return a view with what it needs to know of the source.

    Raises:
        ValueError: the source has no training sections.
    """
    quantiles: tuple[float, ...] = ()
    if "histogram" in name:
        quantiles = tuple(HistogramMatch.to(source).quantiles.tolist())
    return ViewMeta(name=name, quantiles=quantiles, pixel_factor=pixel_factor)


def applied(view: ViewMeta) -> View | None:
    """Return a view as ``Predictor`` applies it; None for the image as it is."""
    if view.name == "raw" and view.pixel_factor == 1:
        return None
    return View(_grey(view), view.pixel_factor)


def _grey(view: ViewMeta) -> Style:
    """Return the change of grey values of a view."""
    match view.name:
        case "raw":
            return unchanged
        case "inverted":
            return _inverted
        case "stretched":
            return _stretched
        case "histogram":
            return HistogramMatch(np.array(view.quantiles, np.float32))
        case "inverted_histogram":
            matched = HistogramMatch(np.array(view.quantiles, np.float32))
            return lambda image: matched(_inverted(image))


def unchanged(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an image as it is."""
    return image


def _inverted(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(1) - image


def _stretched(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map the 1st and the 99th percentile of the image to 0 and 1; a flat image stays."""
    low, high = np.percentile(image, _STRETCH_PERCENTILES)
    if low == high:
        return image
    stretched: NDArray[np.float32] = ((image - low) / (high - low)).clip(0, 1).astype(np.float32)
    return stretched
