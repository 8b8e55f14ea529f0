"""The choice of the generator that serves the segmenter best.

CUT's losses cannot choose: they go on falling when later generators serve the segmenter worse.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from models.config.stages import SegmenterTrainingConfig
from models.data.domain import Domain
from models.data.labels import PRESENT, UNKNOWN, class_pixels, present_classes
from models.data.sections import Section
from models.inference import segment, stylise
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.segmentation import validate
from models.training.progress import LABEL_SCORES

_LABELLED_SECTIONS = 8  # spread over the training sections, to bound the time of a validation


class Judge:
    """A judge of generators: it scores the segmentation of the target images that they redraw.

    ``segmenter`` is the source-only segmenter, and ``config`` is what it was trained with.
    """

    def __init__(self, segmenter: UNet, target: Domain, config: SegmenterTrainingConfig) -> None:
        self._segmenter, self._target, self._config = segmenter.eval(), target, config
        labelled = _labelled(target)
        every = -(-len(labelled) // _LABELLED_SECTIONS) or 1
        self._labelled = labelled[::every]

    def scores(self, generator: Generator) -> Mapping[str, float]:
        """Return ``dice/...`` on the target's validation masks, and scores that need no masks.

        ``label_agreement`` is the share of the training tiles' known labels that the prediction
        meets; it predicts a class for a tile if a pixel of the tile has the class. ``confidence``
        is the mean probability of the predicted classes. Both are in [0, 1], and ``label_score`` is
        their sum. Scores for which the target has no masks or no labels are left out.
        """
        generator.eval()
        dice = validate(self._segmenter, self._target, self._config, partial(stylise, generator))
        scores = {**dice, **self._agreement(generator)}
        generator.train()  # its training goes on
        return scores

    def _agreement(self, generator: Generator) -> Mapping[str, float]:
        met, known = 0, 0
        confidences = []
        for section in self._labelled:
            image = stylise(generator, self._target.image(section))
            probabilities = segment(self._segmenter, image, self._config.crop_px)
            confidences.append(float(probabilities.max(axis=0).mean()))
            predicted = probabilities.argmax(axis=0)
            tiles = self._target.tile_windows(section)
            for (y0, y1, x0, x1), labels in zip(tiles.edges, tiles.labels, strict=True):
                present = present_classes(class_pixels(predicted[y0:y1, x0:x1], len(labels)))
                sure = labels != UNKNOWN
                met += int((present == (labels == PRESENT))[sure].sum())
                known += int(sure.sum())
        if not known:
            return {}
        agreement, confidence = met / known, float(np.mean(confidences))
        scores = agreement, confidence, agreement + confidence
        return dict(zip(LABEL_SCORES, scores, strict=True))


def _labelled(target: Domain) -> list[Section]:
    """Return the training sections that have a known label."""
    known = {tile.section for tile in target.labelled_tiles(["train"])}
    return [section for section in target.split("train") if section.index in known]
