"""What is changed of a stage that does not fit: smaller parts of a batch, then a smaller crop."""

from models.capacity.limits import in_less_memory
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig


def with_batch(size: int, **pretrain: int) -> StyleFilterConfig:
    return preset("smoke").changed({"pretrain": {"batch_size": size, **pretrain}})


def test_a_batch_is_halved_before_a_crop() -> None:
    smaller = in_less_memory(with_batch(6), "pretrain")
    assert smaller is not None
    config, words = smaller
    assert config == with_batch(6, accumulate=2)
    assert words.startswith("pretrain.accumulate 1 -> 2: ")

    smaller = in_less_memory(with_batch(1, crop_px=100), "pretrain")
    assert smaller is not None
    config, words = smaller
    assert config == with_batch(1, crop_px=48)
    assert words.startswith("pretrain.crop_px 100 -> 48: ")

    assert in_less_memory(with_batch(3, accumulate=3, crop_px=40), "pretrain") is None
    assert in_less_memory(with_batch(6), "stylise") is None
