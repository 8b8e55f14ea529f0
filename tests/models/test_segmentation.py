"""Pre-training: without its options it is Equation 1 alone; with them it is what they say."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from models.config.stages import PretrainConfig, SegmenterConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain
from models.data.sampling import Sampler
from models.networks.unet import UNet
from models.segmentation import pretrain
from models.training.loop import Run, seeded_weights
from models.training.resume import Checkpoints
from tests.models.domains import QUIET, equal_weights, squares, write_domain

pytestmark = pytest.mark.training

STEPS = 6


def unvalidated(folder: Path) -> Domain:
    """Return a domain whose last weights are kept: it has nothing to validate on."""
    pairs = [squares(48, seed) for seed in range(3)]
    images, masks = [image for image, _ in pairs], [mask for _, mask in pairs]
    return write_domain(folder / "d.zarr", images, masks, ["train"] * 3)


def config(**changes: object) -> StyleFilterConfig:
    stage = {"crop_px": 32, "steps": STEPS, "learning_rate": 1e-2}
    return StyleFilterConfig(
        segmenter=SegmenterConfig(base_filters=4, depth=2),
        pretrain=PretrainConfig(**stage | changes),
    )


def by_hand(source: Domain, config: StyleFilterConfig) -> UNet:
    """Train by Equation 1 at a constant rate on crops that are cut, turned and changed here."""
    stage, changes = config.pretrain, config.pretrain.augmentation
    sampler = Sampler(source.split("train"), config.seed, "pretrain", "source")
    with seeded_weights(config.seed):
        unet = UNet(2, config.segmenter)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=stage.learning_rate)
    for step in range(1, STEPS + 1):
        images, masks = [], []
        for sample in sampler.batch(step, stage.batch_size):
            rng = sample.rng
            y0, x0, turns = int(rng.integers(17)), int(rng.integers(17)), int(rng.integers(4))
            at = slice(y0, y0 + 32), slice(x0, x0 + 32)
            contrast = 1 + rng.uniform(-changes.contrast, changes.contrast)
            brightness = rng.uniform(-changes.brightness, changes.brightness)
            noise = rng.standard_normal((32, 32), dtype=np.float32) * np.float32(0.05)
            image = np.rot90(source.image(sample.section)[at], turns)
            changed = ((image - 0.5) * contrast + (0.5 + brightness) + noise).clip(0, 1)
            images.append(changed.astype(np.float32)[None])
            masks.append(np.rot90(source.mask(sample.section)[at], turns).astype(np.int64))
        optimiser.zero_grad()
        labels = torch.from_numpy(np.stack(masks))
        logits = unet(torch.from_numpy(np.stack(images) * 2 - 1))
        total = cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
        (total / labels.numel()).backward()
        optimiser.step()
    return unet


def test_without_options_it_is_equation_1_bit_for_bit(tmp_path: Path) -> None:
    source, plain = unvalidated(tmp_path), config()
    trained = pretrain(source, plain, QUIET)
    assert equal_weights(trained, by_hand(source, plain))


@pytest.mark.parametrize(
    "option",
    [
        {"dice_weight": 0.5},
        {"learning_rate_decay": "linear"},
        {"augmentation": {"zoom": 0.3}},
        {"augmentation": {"strong": {"probability": 0.5}}},
    ],
)
def test_each_option_changes_what_is_learnt(tmp_path: Path, option: dict[str, object]) -> None:
    source = unvalidated(tmp_path)
    changed = pretrain(source, config(**option), QUIET)
    assert not equal_weights(changed, pretrain(source, config(), QUIET))


def rates(state: Mapping[str, object]) -> list[float]:
    return [group["lr"] for group in state["optimisers"]["segmenter"]["param_groups"]]


@pytest.mark.parametrize("decay", ["none", "linear"])
def test_the_rate_falls_to_zero_in_the_second_half(tmp_path: Path, decay: str) -> None:
    source, used = unvalidated(tmp_path), []
    checkpoints = Checkpoints(tmp_path, every_seconds=0)

    def report(_: object) -> None:
        (saved,) = [torch.load(path) for path in tmp_path.glob("*.pt")] or [None]
        if saved is not None:
            used.append(rates(saved))

    pretrain(source, config(learning_rate_decay=decay), Run(report, checkpoints))
    (last,) = [torch.load(path) for path in tmp_path.glob("*.pt")]
    factors = {"none": [1, 1, 1, 1, 1, 1], "linear": [1, 1, 1, 3 / 4, 2 / 4, 1 / 4]}[decay]
    assert [*used, rates(last)] == [[pytest.approx(1e-2 * factor)] for factor in factors]


def test_the_loss_of_rare_classes_is_added_to_the_cross_entropy(tmp_path: Path) -> None:
    """Of one class all pixels are certain, so Dice is known; nothing rare adds nothing."""
    source = unvalidated(tmp_path)
    losses: dict[float, list[float]] = {}
    for weight in (0.0, 0.5, 1.0):
        losses[weight] = []
        keep = losses[weight].append
        run = Run(lambda progress, keep=keep: keep(progress.values["loss"]))
        pretrain(source, config(dice_weight=weight), run)
    # The first step starts from the same weights, whatever the loss.
    plain, half, whole = (losses[weight][0] for weight in (0.0, 0.5, 1.0))
    assert 0 < half - plain < 0.5
    assert whole - plain == pytest.approx(2 * (half - plain), rel=1e-5)
