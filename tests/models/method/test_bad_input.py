"""Data that is small or dull: it trains as asked, and nothing becomes infinite."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig
from models.data.sections import Split
from models.stylefilter import adapt
from models.training.loop import Run
from models.training.progress import Progress
from tests.models.domains import write_domain

Image = NDArray[np.uint8]


def noise(height: int, width: int) -> Image:
    return np.random.default_rng(0).integers(255, size=(height, width), dtype=np.uint8)


def halves(height: int, width: int) -> Image:
    """A mask with class 1 in its upper half."""
    mask = np.zeros((height, width), np.uint8)
    mask[: -(-height // 2)] = 1
    return mask


def filled(value: int, height: int = 20, width: int = 20) -> Image:
    return np.full((height, width), value, np.uint8)


def in_batches_of_four() -> StyleFilterConfig:
    larger = {"batch_size": 4, "steps": 2}
    return preset("smoke").changed({"style": larger, "pretrain": larger, "adaptation": larger})


CASES: dict[str, tuple[Image, Image, Image]] = {
    "images of 8 x 8 px": (noise(8, 8), halves(8, 8), noise(8, 8)),
    "images of one pixel": (noise(1, 1), halves(1, 1), noise(1, 1)),
    "narrow images": (noise(8, 20), halves(8, 20), noise(20, 9)),
    "constant images": (filled(7), halves(20, 20), filled(90)),
    "one class only": (noise(20, 20), filled(0), noise(20, 20)),
}


@pytest.mark.parametrize("case", CASES)
def test_one_section_smaller_than_crop_and_batch_trains(case: str, tmp_path: Path) -> None:
    image, mask, target = CASES[case]
    check_trains([image], [mask], ["train"], target, tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_of_ignored_pixels_beside_others_train(split: Split, tmp_path: Path) -> None:
    images, masks = [noise(20, 20), noise(24, 24)], [halves(20, 20), filled(255, 24, 24)]
    check_trains(images, masks, ["train", split], noise(20, 20), tmp_path)


def check_trains(
    images: Sequence[Image],
    masks: Sequence[Image],
    splits: Sequence[Split],
    target: Image,
    folder: Path,
) -> None:
    """All stages run, and each loss and weight is finite."""
    source = write_domain(folder / "source.zarr", images, masks, splits)
    unlabelled = write_domain(folder / "target.zarr", [target], [None], ["train"])
    reports: list[Progress] = []
    made = adapt(source, unlabelled, in_batches_of_four(), Run(reports.append), folder / "work")
    assert [(report.stage, report.step) for report in reports] == [
        ("pretrain", 1),
        ("pretrain", 2),
        ("style", 1),
        ("style", 2),
        ("stylise", 1),
        ("adapt", 1),
        ("adapt", 2),
    ]
    losses = [value for report in reports for value in report.values.values()]
    assert np.isfinite(losses).all()
    for network in (made.style, made.source_only, made.adapted):
        assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert reports[0].values["loss"] > 0
