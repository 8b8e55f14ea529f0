"""Named configurations; free of torch."""

from typing import Literal

from models.config.baselines import WeakLabelsConfig
from models.config.stages import (
    AdaptationConfig,
    PretrainConfig,
    SegmenterConfig,
    StyleConfig,
)
from models.config.stylefilter import StyleFilterConfig

PresetName = Literal["smoke", "quick", "best", "paper"]


_BEST = {
    "method": "chosen",
    "pretrain": {
        "steps": 2400,
        "validate_every_steps": 200,
        "dice_weight": 0.5,
        "learning_rate_decay": "linear",
    },
    "adaptation": {
        "steps": 450,
        "validate_every_steps": 150,
        "batch_size": 2,
        "learning_rate": 5e-4,
        "learning_rate_decay": "linear",
    },
    "choice": {
        "views": ("inverted", "stretched", "histogram", "inverted_histogram"),
        # The third correction of area ranks last untrained, and would take as long as these.
        "max_trained": 2,
    },
}
"""The fields in which ``best`` differs from ``quick``."""


def preset(name: PresetName) -> StyleFilterConfig:
    """Return a named configuration.

    ``paper`` has every number of the paper. ``quick`` is for the CPU of a laptop: it has fewer
    filters and blocks, smaller crops, fewer steps, higher learning rates, and pixels twice as
    large. The weights of the source alone make its pseudo-labels, and are kept if the short
    adaptation finds none better. ``best`` has the sizes of ``quick``, and trains on the source for
    longer, with a loss of rare classes and a learning rate that decays; its adaptation has the six
    rounds of self-training in rounds (``config.rounds``), and the target's labels choose its
    result (``config.method``) among more views. ``smoke`` takes seconds, and shows only that
    everything runs.
    """
    if name == "paper":
        return StyleFilterConfig()
    if name == "best":
        return preset("quick").changed(_BEST)
    if name == "quick":
        return StyleFilterConfig(
            style=StyleConfig(
                base_filters=16, num_blocks=6, crop_px=96, steps=1000, learning_rate=4e-4
            ),
            segmenter=SegmenterConfig(base_filters=16),
            pretrain=PretrainConfig(
                crop_px=128, steps=600, batch_size=4, learning_rate=1e-3, validate_every_steps=100
            ),
            adaptation=AdaptationConfig(
                crop_px=128,
                steps=150,
                batch_size=4,
                learning_rate=2e-4,
                validate_every_steps=50,
                pseudo_labeler="frozen",
                start_eligible=True,
            ),
            weak_labels=WeakLabelsConfig(discriminator_filters=16, learning_rate=1e-3),
            pixel_size_factor=2.0,  # so that a small crop still shows whole organelles
        )
    return StyleFilterConfig(
        style=StyleConfig(
            base_filters=4, num_blocks=5, crop_px=32, steps=4, num_patches=16, projector_width=16
        ),
        segmenter=SegmenterConfig(base_filters=4, depth=2),
        pretrain=PretrainConfig(crop_px=32, steps=6, learning_rate=1e-3, validate_every_steps=3),
        adaptation=AdaptationConfig(
            crop_px=32, steps=6, learning_rate=1e-3, validate_every_steps=3
        ),
        weak_labels=WeakLabelsConfig(discriminator_filters=4),
    )
