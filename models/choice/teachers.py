"""Ways to segment that are more than one network on a view: a student may learn from them.

Legend: C classes, H height, W width.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.choice.steadiness import Predict
from models.data.domain import resample_image
from models.inference import Predictor, stylise
from models.networks.generator import Generator
from models.training import identity


@dataclass(frozen=True)
class Teacher:
    """A way to segment images at the working pixel size; no other way has the same ``identity``.

    ``name`` and ``title`` are those of the candidate; the title begins in lower case. ``made_of``
    are the titles of the candidates that a mean is of.
    """

    name: str
    title: str
    made_of: tuple[str, ...]
    identity: str
    predict: Predict


def ensemble(members: Sequence[tuple[str, Predictor]]) -> Teacher:
    """Return the mean of the probabilities of several candidates, each with its title."""
    predictors = [predictor for _, predictor in members]
    # A title names the view, and the view follows from the source's images.
    facts = [f"{title} {identity.of_weights(each.segmenter)}" for title, each in members]
    return Teacher(
        name=f"mean of {len(members)}",
        title=f"mean of {len(members)} candidates",
        made_of=tuple(title for title, _ in members),
        identity=hashlib.sha256("\n".join(facts).encode()).hexdigest(),
        predict=lambda image: mean_of(at_working_size(each, image) for each in predictors),
    )


def behind_cut(generator: Generator, predictor: Predictor) -> Teacher:
    """Return the segmenter of ``predictor`` on images that the generator redrew."""
    styled = Predictor(
        predictor.segmenter, predictor.working_nm, predictor.crop_px, partial(stylise, generator)
    )
    return Teacher(
        name="cut",
        title="source-only segmenter on images that CUT redrew",
        made_of=(),
        identity=f"{identity.of_weights(generator)} {identity.of_weights(styled.segmenter)}",
        predict=styled.probabilities,
    )


def at_working_size(predictor: Predictor, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities (C, H, W) of an image (H, W) at the working pixel size.

    If the segmenter sees images at another size, image and probabilities are resampled.
    """
    scale = predictor.working_nm / predictor.seen_nm
    height, width = (max(1, round(scale * side)) for side in image.shape)
    found = predictor.probabilities(resample_image(image, (height, width)))
    shape = image.shape[0], image.shape[1]
    return np.stack([resample_image(each, shape) for each in found])


def mean_of(predictions: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the mean of arrays of one shape, of which two are in memory at a time."""
    total, number = None, 0
    for each in predictions:
        total = each.copy() if total is None else np.add(total, each, out=total)
        number += 1
    assert total is not None
    total /= np.float32(number)
    return total
