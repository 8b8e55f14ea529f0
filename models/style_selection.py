"""Which of CUT's generators serves the segmenter: its losses keep falling when that has passed.

Legend: C classes, H height, W width.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.data.domain import PRESENT, UNKNOWN, Domain, Section
from models.inference import segment, stylise
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.scores import Evaluation, confusion_matrix

_LABELLED_SECTIONS = 8  # spread over the training sections, to bound the time of a validation


class Judge:
    """Scores generators by what a segmenter of the source makes of the images they render.

    ``crop_px`` is the side of the crops that the segmenter was trained on.
    """

    def __init__(self, segmenter: UNet, target: Domain, crop_px: int) -> None:
        self._segmenter, self._target, self._crop_px = segmenter.eval(), target, crop_px
        labelled = _labelled(target)
        every = -(-len(labelled) // _LABELLED_SECTIONS) or 1
        self._labelled = labelled[::every]

    def scores(self, generator: Generator) -> Mapping[str, float]:
        """``dice/...`` on the target's validation masks, and what needs no masks.

        That is ``label_agreement``, the share of the training tiles' known labels that the
        prediction meets (a class is predicted where a pixel of the tile has it), ``confidence``,
        the mean probability of the class that is predicted, both in [0, 1], and their sum,
        ``label_score``. What the target has no masks or no labels for is left out.
        """
        generator.eval()
        scores = {**self._dice(generator), **self._agreement(generator)}
        generator.train()
        return scores

    def _dice(self, generator: Generator) -> Mapping[str, float]:
        target = self._target
        pooled = np.zeros((target.num_classes, target.num_classes), dtype=np.int64)
        for section in target.split("val", masked=True):
            predicted = self._probabilities(generator, section).argmax(axis=0).astype(np.uint8)
            pooled += confusion_matrix(target.mask(section), predicted, target.num_classes)
        return Evaluation.of(target.info.class_names, pooled).values()

    def _agreement(self, generator: Generator) -> Mapping[str, float]:
        met, known = 0, 0
        confidences = []
        for section in self._labelled:
            probabilities = self._probabilities(generator, section)
            confidences.append(float(probabilities.max(axis=0).mean()))
            for window, labels in _tiles(self._target, section):
                predicted = np.bincount(
                    probabilities[:, *window].argmax(axis=0).ravel(), minlength=len(labels)
                )
                sure = labels != UNKNOWN
                met += int(((predicted > 0) == (labels == PRESENT))[sure].sum())
                known += int(sure.sum())
        if not known:
            return {}
        agreement, confidence = met / known, float(np.mean(confidences))
        return {
            "label_agreement": agreement,
            "confidence": confidence,
            "label_score": agreement + confidence,
        }

    def _probabilities(self, generator: Generator, section: Section) -> NDArray[np.float32]:
        """(C, H, W) at the working pixel size."""
        image = stylise(generator, self._target.image(section))
        return segment(self._segmenter, image, self._crop_px)


def _labelled(target: Domain) -> list[Section]:
    """Training sections with a label that is known."""
    known = {tile.section for tile in target.tiles if any(n != UNKNOWN for n in tile.labels)}
    return [section for section in target.split("train") if section.index in known]


def _tiles(target: Domain, section: Section) -> list[tuple[tuple[slice, slice], NDArray[np.int8]]]:
    """Windows at the working pixel size, none of them empty, with their labels (C,)."""
    height, width = target.working_shape(section)
    rows, cols = height / section.height, width / section.width
    found = []
    for tile in target.tiles:
        if tile.section != section.index:
            continue
        y0, y1 = round(tile.y0 * rows), round((tile.y0 + tile.height) * rows)
        x0, x1 = round(tile.x0 * cols), round((tile.x0 + tile.width) * cols)
        if y1 > y0 and x1 > x0:
            window = slice(y0, y1), slice(x0, x1)
            found.append((window, np.array(tile.labels, dtype=np.int8)))
    return found
