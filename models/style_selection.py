"""The choice of the generator that serves the segmenter best.

CUT's losses cannot choose: they go on falling when later generators serve the segmenter worse.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from models.choice.label_scores import FEW_TILES, gather
from models.choice.tiles import thinned, training_jury
from models.config.stages import SegmenterTrainingConfig
from models.data.domain import Domain
from models.inference import Predictor, stylise
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.segmentation import validate
from models.training.progress import LABEL_SCORES

_TILES = 800  # spread over the training sections, to bound the time of a validation


class Judge:
    """A judge of generators: it scores the segmentation of the target images that they redraw.

    ``segmenter`` is the source-only segmenter, and ``config`` is what it was trained with.
    """

    def __init__(self, segmenter: UNet, target: Domain, config: SegmenterTrainingConfig) -> None:
        self._segmenter, self._target, self._config = segmenter.eval(), target, config
        self._jury = thinned(training_jury(target), _TILES)

    def scores(self, generator: Generator) -> Mapping[str, float]:
        """Return ``dice/...`` on the target's validation masks, and scores that need no masks.

        ``label_probability`` is the probability that the prediction gives to the labels of training
        tiles: exp(-loss) of ``Evidence.loss``, in (0, 1]. ``label_agreement`` is the share of these
        labels that it meets, where a class is in a tile if it covers 1 % of it. How confident a
        prediction is counts in neither: one that finds nothing is the most confident. Scores for
        which the target has no masks or no labels are left out.
        """
        generator.eval()
        dice = validate(self._segmenter, self._target, self._config, partial(stylise, generator))
        scores = {**dice, **self._by_labels(generator)}
        generator.train()  # its training goes on
        return scores

    def _by_labels(self, generator: Generator) -> Mapping[str, float]:
        crop_px, style = self._config.crop_px, partial(stylise, generator)
        predictor = Predictor(self._segmenter, self._target.working_nm, crop_px, style)
        few = self._jury.num_tiles < FEW_TILES
        evidence = gather(
            predictor.probabilities, self._target, self._jury.sections, steadiness=few
        )
        loss = evidence.loss()
        if loss is None:
            return {}
        met = 1 - evidence.errors.sum() / evidence.counts.sum()
        return dict(zip(LABEL_SCORES, (float(met), float(np.exp(-loss))), strict=True))
