"""Poor data: each stage trains to finite weights, or refuses in words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain
from models.training.loop import NonFiniteLoss
from tests.models.domains import QUIET, squares, write_domain
from tests.models.stage_process import TrainedStage, tiny, train_stage

pytestmark = pytest.mark.training

Data = tuple[list[NDArray[np.generic]], list[NDArray[np.uint8]]]


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def filled(value: int, *shape: int) -> NDArray[np.uint8]:
    return np.full(shape, value, np.uint8)


def with_one_pixel(background: int, value: int) -> NDArray[np.uint8]:
    image = filled(background, 40, 40)
    image[20, 20] = value
    return image


POOR: dict[str, Callable[[], Data]] = {
    "fewer sections than the batch": lambda: ([noise(40, 40)], [noise(40, 40) % 2]),
    "smaller than the crop": lambda: ([noise(20, 20)] * 2, [noise(20, 20) % 2] * 2),
    "narrower than the crop": lambda: ([noise(90, 9)] * 2, [noise(90, 9) % 2] * 2),
    "one pixel": lambda: ([noise(1, 1)] * 2, [filled(1, 1, 1)] * 2),
    "unequal sizes": lambda: ([noise(5, 70), noise(40, 33)], [filled(0, 5, 70), filled(1, 40, 33)]),
    "one class": lambda: ([noise(40, 40)] * 2, [filled(1, 40, 40)] * 2),
    "all ignored": lambda: ([noise(40, 40)] * 2, [filled(IGNORE, 40, 40)] * 2),
    "one known pixel": lambda: ([noise(40, 40)] * 2, [with_one_pixel(IGNORE, 1)] * 2),
    "constant": lambda: ([filled(128, 40, 40)] * 2, [filled(0, 40, 40)] * 2),
    "all black": lambda: ([filled(0, 40, 40)] * 2, [filled(0, 40, 40)] * 2),
    "almost constant": lambda: ([with_one_pixel(128, 129)] * 2, [squares(40, 0)[1]] * 2),
    "black and white": lambda: ([noise(40, 40) // 128 * 255] * 2, [noise(40, 40) // 128] * 2),
}


def domain_of(store: Path, data: Data, *, validated: bool = True) -> Domain:
    """Training sections, of which the first validates too."""
    images, masks = data
    if validated:
        images, masks = [*images, images[0]], [*masks, masks[0]]
    splits: list[Any] = ["train"] * (len(images) - validated) + ["val"] * validated
    return write_domain(store, images, masks, splits)


def fine() -> Data:
    images, masks = zip(*(squares(48, seed) for seed in range(3)), strict=True)
    return list(images), list(masks)


def config(norm: str, **changes: Any) -> StyleFilterConfig:
    shared = {"batch_size": 2, "steps": 3, "learning_rate": 1e-2, "validate_every_steps": 2}
    return tiny(shared | changes, {"norm": norm})


@pytest.mark.parametrize("poor", POOR)
@pytest.mark.parametrize(
    ("stage", "norm", "which", "method"),
    [
        ("style", "instance", {"source", "target"}, ""),
        ("pretrain", "batch", {"source"}, ""),
        ("pretrain", "instance", {"source"}, ""),
        ("adapt", "batch", {"target"}, "stylefilter"),
        ("adapt", "batch", {"source", "target"}, "stylefilter"),
        ("adapt", "instance", {"source", "target"}, "stylefilter"),
        ("adapt", "batch", {"source", "target"}, "y-net"),
        ("adapt", "batch", {"source"}, "paul"),
        ("adapt", "batch", {"source", "target"}, "paul"),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else value,
)
def test_poor_data_train_to_finite_weights(
    tmp_path: Path, stage: TrainedStage, norm: str, which: set[str], method: str, poor: str
) -> None:
    source, target = (
        domain_of(tmp_path / f"{name}.zarr", POOR[poor]() if name in which else fine())
        for name in ("source", "target")
    )
    trained = train_stage(stage, (source, target), config(norm), QUIET, tmp_path, method)
    for name, value in trained.state_dict().items():
        assert bool(value.isfinite().all()), name


def with_nan(data: Data) -> Data:
    """One NaN pixel in the middle of each section: every crop of 32 out of 48 pixels has it."""
    images = [image.astype(np.float32) for image in data[0]]
    for image in images:
        image[image.shape[0] // 2, image.shape[1] // 2] = np.nan
    return list(images), data[1]


@pytest.mark.parametrize("masks", ["known", "ignored"])
@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
@pytest.mark.parametrize(
    ("stage", "which"),
    [
        ("style", "source"),
        ("style", "target"),
        ("pretrain", "source"),
        ("adapt", "source"),
        ("adapt", "target"),
    ],
)
def test_a_nan_pixel_is_refused_before_it_reaches_a_weight(
    tmp_path: Path, stage: TrainedStage, which: str, norm: str, masks: str
) -> None:
    """Behind ignored pixels the loss is 0, and only the gradient tells."""
    good, bad = fine(), with_nan(fine())
    if masks == "ignored":
        bad = bad[0], [filled(IGNORE, *mask.shape) for mask in bad[1]]
    source, target = (
        domain_of(tmp_path / f"{name}.zarr", bad if name == which else good, validated=False)
        for name in ("source", "target")
    )
    words = rf"^stage {stage}, step 1: the (loss|gradient) is (nan|inf); it changed no weight$"
    with pytest.raises(NonFiniteLoss, match=words):
        train_stage(stage, (source, target), config(norm), QUIET, tmp_path)


def test_a_nan_pixel_that_only_the_statistics_meet_is_refused(tmp_path: Path) -> None:
    """A step's few crops miss the top row of a section; the 64 for the statistics do not."""
    images, masks = fine()
    spoilt = images[0].astype(np.float32)
    spoilt[0] = np.nan
    source = domain_of(tmp_path / "source.zarr", fine())
    target = domain_of(tmp_path / "target.zarr", ([spoilt, *images[1:]], masks), validated=False)
    still = {"augmentation": {"rotate": False}, "select_on": "last"}
    train_stage("adapt", (source, target), config("group", **still), QUIET, tmp_path)
    with pytest.raises(NonFiniteLoss, match="statistics are not finite"):
        train_stage("adapt", (source, target), config("batch", **still), QUIET, tmp_path)
