"""Score the weights of a training step by image-level labels; free of test and validation masks."""

from collections.abc import Callable

import numpy as np
from torch import nn

from models.choice.label_scores import gather
from models.data.domain import Domain
from models.inference import Predictor
from models.networks.unet import UNet

_SECTIONS = 4  # one pass at each validation must not take longer than training between two


def by_labels(crop_px: int) -> Callable[[nn.Module, Domain], float | None]:
    """Return a score by the training labels: the less log-loss, the higher; None without labels.

    It reads at most four training sections with labels, evenly spread. Training has seen these
    labels, which flatters late weights.
    """

    def score(segmenter: nn.Module, target: Domain) -> float | None:
        assert isinstance(segmenter, UNet)
        labelled = {tile.section for tile in target.labelled_tiles(["train"])}
        sections = [each for each in target.split("train") if each.index in labelled]
        number = min(_SECTIONS, len(sections))
        places = ((np.arange(number) + 0.5) * len(sections) / max(1, number)).astype(int)
        was_training = segmenter.training
        predictor = Predictor(segmenter.eval(), target.working_nm, crop_px)
        loss = gather(predictor.probabilities, target, [sections[n] for n in places]).loss()
        segmenter.train(was_training)
        return None if loss is None else -loss

    return score
