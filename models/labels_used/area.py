"""Area given presence: image-level labels say where a class is, the source how much of it.

A network that sees a foreign microscope tends to draw a rare class too small. In tiles that hold
the class, its mean share of the area is known from the source's masks. A bias on the class's logit
brings the mean predicted share, in the target's tiles labelled present, to this prior. No mask of
the target takes part.

Legend: C classes, H height, W width.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from models.data.domain import Domain, TileWindows
from models.data.labels import PRESENT, class_pixels, present_classes
from models.data.tiles import tile_windows
from models.inference import segment
from models.labels_used.training_labels import TrainingLabels, spread
from models.networks.unet import UNet

MIN_TILES = 16
"""The fewest tiles labelled present from which a bias is set: the mean of fewer says little."""

MAX_BIAS = 6.0
"""The largest bias either way: a class that needs more was not found, and is not to be invented."""

_EDGES = np.arange(-100 * MAX_BIAS, 100 * MAX_BIAS + 1) / 100
SECTIONS = 64
"""The most sections whose tiles are looked at: more would take time and tell nothing new."""


def area_prior(source: Domain, tile_px: int) -> NDArray[np.float64]:
    """Return the mean share of each class in the source's training tiles that hold it: (C,).

    Masks of training sections are cut into whole tiles of ``tile_px`` pixels a side, at the working
    size; a section that is smaller along a side is taken whole along it. A share is that of the
    pixels with a class. A class that no tile holds has NaN.

    Raises:
        ValueError: no training section has a mask.
    """
    total, holding = np.zeros(source.num_classes), np.zeros(source.num_classes, np.int64)
    for section in source.training_sections(masked=True):
        mask = source.mask(section)
        whole = tuple(min(tile_px, side) for side in mask.shape)
        for y0, x0, *size in tile_windows(mask.shape[0], mask.shape[1], tile_px):
            if tuple(size) == whole:  # not so at the edge
                window = mask[y0 : y0 + whole[0], x0 : x0 + whole[1]]
                counts = class_pixels(window, source.num_classes)
                total += counts / max(1, counts.sum())
                holding += present_classes(counts)
    prior: NDArray[np.float64] = np.full(len(total), np.nan)
    np.divide(total, holding, out=prior, where=holding > 0)
    return prior


def prior_by_labels(source: Domain, target: Domain) -> NDArray[np.float64]:
    """Return ``area_prior`` for tiles of the size of the target's labelled training tiles: (C,).

    A class that nearly every label calls present has NaN: no label places it, so none says how much
    of it a tile must have. Without a labelled tile all classes have NaN.

    Raises:
        ValueError: the source has no mask, or the target no section, to train with.
    """
    labels = TrainingLabels.of(target)
    if labels.tile_px is None:
        return np.full(source.num_classes, np.nan)
    return np.where(labels.uninformative, np.nan, area_prior(source, labels.tile_px))


class PresentTiles:
    """The predictions in tiles labelled present, for each class: its share under any bias.

    A pixel takes a class if the class's logit is above all others, that is, if its *margin* is
    positive. The margins of each tile are kept as a histogram, so memory does not grow with the
    number of tiles. ``num_tiles`` (C,) counts the tiles of each class.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_tiles = np.zeros(num_classes, np.int64)
        # With a bin on either side for the margins that no bias can turn.
        self._histogram = np.zeros((num_classes, len(_EDGES) + 1))

    def add(self, probabilities: NDArray[np.float32], tiles: TileWindows) -> None:
        """Add a section's prediction, (C, H, W) in [0, 1]; zeros where a class is not allowed."""
        for (y0, y1, x0, x1), labels in zip(tiles.edges, tiles.labels, strict=True):
            window = probabilities[:, y0:y1, x0:x1]
            if window[0].size == 0:
                continue
            for number in np.flatnonzero(labels == PRESENT):
                places = np.searchsorted(_EDGES, _margins(window, int(number)).ravel())
                counts = np.bincount(places, minlength=len(_EDGES) + 1)
                self._histogram[number] += counts / counts.sum()
                self.num_tiles[number] += 1

    def shares(self, number: int) -> NDArray[np.float64]:
        """Return the mean share of a class in its tiles, under each bias of ``biases()``."""
        above = self._histogram[number, ::-1].cumsum()[:-1]
        share: NDArray[np.float64] = above / max(1, self.num_tiles[number])
        return share


def biases() -> NDArray[np.float64]:
    """Return the biases that are tried, in rising order: -6 to 6 in steps of 0.01."""
    return -_EDGES[::-1]


def class_bias(
    predicted: PresentTiles, prior: NDArray[np.float64], power: float
) -> NDArray[np.float64]:
    """Return the bias of each class's logit: ``power`` times the one that meets the prior, (C,).

    That is the bias with which the mean predicted share in the class's tiles is nearest to
    ``prior`` (C,); of several the one nearest to 0. It is 0 for a class with a prior of NaN or with
    fewer than 16 tiles. Each class is treated as if it alone were biased.
    """
    tried, found = biases(), np.zeros(len(prior))
    for number in np.flatnonzero((predicted.num_tiles >= MIN_TILES) & ~np.isnan(prior)):
        distance = np.abs(predicted.shares(int(number)) - prior[number])
        nearest = tried[distance <= distance.min() + 1e-12]
        found[number] = nearest[np.abs(nearest).argmin()]
    return power * found


@torch.no_grad()
def fold(segmenter: UNet, bias: NDArray[np.float64]) -> None:
    """Add a bias (C,) to the segmenter's logits, in its last convolution, in place."""
    assert segmenter.head.bias is not None
    segmenter.head.bias += torch.as_tensor(bias).to(segmenter.head.bias)


def predicted_in_tiles(segmenter: UNet, target: Domain, crop_px: int) -> PresentTiles:
    """Segment labelled training sections once, and return the predictions in their tiles.

    ``segmenter`` is in eval mode, and ``crop_px`` the side of its training crops. Of many sections
    64 are taken, evenly spread.
    """
    predicted = PresentTiles(target.num_classes)
    for section in spread(target, SECTIONS):
        probabilities = segment(segmenter, target.image(section), crop_px)
        predicted.add(probabilities, target.tile_windows(section))
    return predicted


def _margins(probabilities: NDArray[np.float32], number: int) -> NDArray[np.float64]:
    """Return a class's logit less the highest of the others, (H, W), from probabilities."""
    others = np.delete(probabilities, number, axis=0).max(axis=0).astype(np.float64)
    # A probability of 0 has the logit minus infinity; where all are 0 nothing is decided.
    with np.errstate(divide="ignore", invalid="ignore"):
        margins = np.log(probabilities[number].astype(np.float64)) - np.log(others)
    return np.where(np.isnan(margins), -np.inf, margins)
