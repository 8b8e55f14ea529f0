"""Pseudo-labels of whole sections, made by weights that stay for a round, and by labels of tiles.

Legend: C classes, H height, W width, S side of a crop.
"""

import numpy as np
from numpy.typing import NDArray

from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, ArrayCache, Domain, TileWindows
from models.data.labels import PRESENT
from models.data.samples import Crop
from models.data.sections import Section
from models.inference import segment
from models.labels_used.area import SECTIONS, PresentTiles, class_bias
from models.labels_used.points import PointDiscs
from models.labels_used.training_labels import LABEL_CACHE_BYTES, TrainingLabels, spread
from models.labels_used.training_masks import first_rows, masked_sections, with_mask
from models.networks.unet import UNet
from models.training.loop import autocast


class SectionLabels:
    """The labels of the target's training sections, each made when it is first needed.

    They follow from the weights of ``labeler`` and of ``source_only``, and from nothing drawn or
    made before, so a run that goes on after a stop makes the same labels again. ``prior`` (C,) is
    the area given presence, NaN for a class without one.

    Raises:
        ValueError: the target lacks a masked section that the configuration asks for.
    """

    def __init__(
        self,
        labeler: UNet,
        source_only: UNet,
        target: Domain,
        config: StyleFilterConfig,
        prior: NDArray[np.float64],
    ) -> None:
        self._labeler, self._source_only, self._target = labeler, source_only, target
        self._stage, self._rounds = config.adaptation, config.rounds
        uninformative = TrainingLabels.of(target).uninformative
        self._protected = uninformative & config.rounds.protect_uninformative
        self._prior = prior
        self.discs = PointDiscs(target, config.rounds)
        masked = masked_sections(target.sections, config.rounds.masked_sections)
        self._masked = {section.index for section in masked}
        self._own = ArrayCache(LABEL_CACHE_BYTES)  # of the source-only weights, which stay
        self.forget()

    def forget(self) -> None:
        """Forget the labels of the round before: the labeler's weights changed."""
        self._probabilities = ArrayCache(LABEL_CACHE_BYTES)
        self._labels = ArrayCache(LABEL_CACHE_BYTES)
        self._bias: NDArray[np.float64] | None = None

    def of_crop(self, crop: Crop) -> NDArray[np.int64]:
        """Return the labels of a crop: (S, S) int64, 255 in padding and where none is sure."""
        return crop.padded(self.of(crop.section), IGNORE).astype(np.int64)

    def of(self, section: Section) -> NDArray[np.uint8]:
        """Return the labels of a section at the working size: (H, W) uint8, 255 for none."""
        return self._labels.get(("labels", section.index), lambda: self._make(section))

    @property
    def bias(self) -> NDArray[np.float64]:
        """The bias of each class's logit in this round, (C,): that of the area given presence."""
        if self._bias is None:
            self._bias = self._find_bias()
        return self._bias

    def _find_bias(self) -> NDArray[np.float64]:
        if self._rounds.area_power == 0:
            return np.zeros(len(self._prior))
        predicted = PresentTiles(len(self._prior))
        for section in spread(self._target, SECTIONS):
            predicted.add(self._predicted(section), self._target.tile_windows(section))
        return class_bias(predicted, self._prior, self._rounds.area_power)

    def _make(self, section: Section) -> NDArray[np.uint8]:
        odds = np.exp(self.bias).astype(np.float32)[:, None, None]
        probabilities = self.discs.denied(odds * self._predicted(section), section)
        labels = most_likely(probabilities)
        if self._protected.sum() > 1:  # else no two of them have a border
            labels = protected(labels, self._of_source_only(section), self._protected)
        tiles = self._target.tile_windows(section)
        labels = with_missing(labels, probabilities, tiles, self._rounds.add_share)
        if self.discs.any:
            pixels = self.discs.pixels(section)
            labels = np.where(pixels == IGNORE, labels, pixels)
        if section.index in self._masked:
            rows = first_rows(len(labels), self._rounds.mask_rows)
            labels = with_mask(labels, self._target.mask(section), section, rows)
        return labels

    def _predicted(self, section: Section) -> NDArray[np.float32]:
        name = ("probabilities", section.index)
        return self._probabilities.get(name, lambda: self._segment(self._labeler, section))

    def _of_source_only(self, section: Section) -> NDArray[np.uint8]:
        return self._own.get(
            ("labels", section.index),
            lambda: most_likely(self._segment(self._source_only, section)),
        )

    def _segment(self, segmenter: UNet, section: Section) -> NDArray[np.float32]:
        """Return the mean over four rotations, (C, H, W) in [0, 1]; absent classes 0, Eq. 3."""
        image, stage = self._target.image(section), self._stage
        total = np.zeros((self._target.num_classes, *image.shape), np.float32)
        with autocast(next(segmenter.parameters()).device, stage.precision):
            for turns in range(4):  # one after the other: a large section is large four times
                turned = np.ascontiguousarray(np.rot90(image, turns))
                found = segment(segmenter.eval(), turned, stage.crop_px)
                total += np.rot90(found, -turns, axes=(1, 2))
        total /= 4
        return total * self._target.allowed(section) if stage.label_filter else total


def most_likely(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the likeliest class of each pixel, (H, W), of (C, H, W); 255 where all are 0."""
    labels: NDArray[np.uint8] = probabilities.argmax(axis=0).astype(np.uint8)
    labels[probabilities.max(axis=0) == 0] = IGNORE
    return labels


def protected(
    labels: NDArray[np.uint8], of_source_only: NDArray[np.uint8], classes: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return the labels (H, W) where the source-only segmenter decides between some classes.

    ``classes``, (C,) bool, are these. Where both call a pixel one of them, the source-only
    segmenter's prevails; other classes win and lose pixels as the new labels say.
    """
    of_them = np.append(classes, np.zeros(IGNORE + 1 - len(classes), bool))
    kept: NDArray[np.uint8] = np.where(
        of_them[labels] & of_them[of_source_only], of_source_only, labels
    )
    return kept


def with_missing(
    labels: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    tiles: TileWindows,
    share: float,
) -> NDArray[np.uint8]:
    """Return the labels (H, W) with the classes that a tile's label calls present.

    A class that covers less than ``share`` of such a tile takes this share of the tile's pixels,
    those of its highest ``probabilities`` (C, H, W), and as many after them become 255. Pixels of
    probability 0 stay: their own tile calls the class absent.
    """
    if share == 0:
        return labels
    labels = labels.copy()
    for (y0, y1, x0, x1), of_tile in zip(tiles.edges, tiles.labels, strict=True):
        window = labels[y0:y1, x0:x1]  # a view: what is added is added to ``labels``
        for number in np.flatnonzero(of_tile == PRESENT):
            wanted = max(1, round(share * window.size))
            if window.size == 0 or np.count_nonzero(window == number) >= share * window.size:
                continue
            _add(window, probabilities[number, y0:y1, x0:x1], int(number), wanted)
    return labels


def _add(window: NDArray[np.uint8], likely: NDArray[np.float32], number: int, wanted: int) -> None:
    """Give a class the ``wanted`` likeliest pixels of a window, and ignore as many after them."""
    # Stable, so that equal pixels are taken in one order on every machine.
    order = np.argsort(-likely, axis=None, kind="stable")[: 2 * wanted]
    order = order[likely.ravel()[order] > 0]
    rows, columns = np.unravel_index(order, window.shape)
    window[rows, columns] = np.where(np.arange(len(order)) < wanted, number, IGNORE)
