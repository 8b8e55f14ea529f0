"""Count what a choice by the target's labels takes (``choice/search.py``); free of torch.

A row of a benchmark that trains in rounds takes what one trained candidate takes.
"""

from collections.abc import Sequence

from models.config.stylefilter import StyleFilterConfig
from models.labels_used.training_labels import LABEL_CACHE_BYTES

BEST = 2
"""The number of views that are tried in other sizes, and with corrections of area."""

CORRECTIONS = 2
"""The number of corrections of area that are tried without training."""

ROUNDS_NETWORKS = 3
"""The networks that rounds keep beside those of another adaptation: labeler, average and result."""


def num_trained(config: StyleFilterConfig) -> int:
    """Return the most networks that are trained one after the other in the stage ``adapt``."""
    choice = config.choice
    again = int(choice.retrain and choice.max_trained > 0)
    return choice.max_trained + int(_teaches(config)) + again


def num_passes(config: StyleFilterConfig) -> int:
    """Return how often the labelled sections are segmented before candidates are trained."""
    choice = config.choice
    statistics = 2 if choice.target_statistics and config.segmenter.norm == "batch" else 1
    views = statistics * len({"raw", *choice.views})
    sizes = min(BEST, views) * len(set(choice.pixel_factors) - {1.0})
    return views + sizes + min(BEST, views + sizes) * CORRECTIONS


def _teaches(config: StyleFilterConfig) -> bool:
    """Tell whether a student may have to learn from candidates that take several networks."""
    return config.choice.ensemble > 1 or config.choice.style_from_loss is not None


def num_copies(config: StyleFilterConfig, num_classes: int) -> float:
    """Return the most copies of the target that candidates need, as float32 of its own pixels."""
    choice = config.choice
    sizes = sum(factor**-2 for factor in set(choice.pixel_factors) - {1.0})
    again = 1 if choice.retrain else 0
    # A teacher says as many float16 of a pixel as there are classes, at the size of the student.
    finest = max([1.0, *(factor**-2 for factor in choice.pixel_factors)])
    lessons = finest * num_classes / 2 if _teaches(config) else 0
    return len({"raw", *choice.views}) + BEST * sizes + again + lessons


def label_cache_bytes(shapes: Sequence[tuple[int, int]], num_classes: int) -> int:
    """Return the bytes of the caches of rounds, for training sections of shapes (H, W).

    One holds probabilities in float32, and two hold labels in uint8.
    """
    areas = [height * width for height, width in shapes]
    total, largest = sum(areas), max(areas, default=0)
    values = (4 * num_classes, 1, 1)
    return sum(max(min(v * total, LABEL_CACHE_BYTES), v * largest) for v in values)
