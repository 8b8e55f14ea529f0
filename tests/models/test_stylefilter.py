"""Pre-training and adaptation on small data: overfitting, labels, padding, seeds."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.config.augmentation import AugmentationConfig
from models.config.presets import preset
from models.config.stages import AdaptationConfig, PretrainConfig, SegmenterConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain, Tile
from models.inference import Styliser, segment, stylise_domain
from models.losses import cross_entropy
from models.networks.unet import UNet
from models.pseudo_labels import adapt_segmenter
from models.segmentation import pretrain, validate
from models.style_transfer import train_style
from models.stylefilter import adapt, check_pair
from models.training.loop import Run, seeded_weights, update
from models.training.progress import Progress
from tests.models.domains import QUIET, equal_weights, ignore, square_domain, write_domain

pytestmark = pytest.mark.training

SMOKE = preset("smoke")
UNCHANGED = Styliser(lambda image: image, "nothing")
STILL = AugmentationConfig(rotate=False, brightness=0, contrast=0, noise_sigma=0)


def overfitting(**adaptation: object) -> StyleFilterConfig:
    stage = {"crop_px": 48, "learning_rate": 1e-2, "augmentation": STILL}
    return StyleFilterConfig(
        segmenter=SegmenterConfig(base_filters=4, depth=2, norm="group"),
        pretrain=PretrainConfig(steps=40, validate_every_steps=20, **stage),
        adaptation=AdaptationConfig(
            **{"steps": 30, "validate_every_steps": 10, **stage, **adaptation}
        ),
    )


@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
def test_one_batch_can_be_overfitted(norm: str) -> None:
    with seeded_weights(0):
        unet = UNet(3, SegmenterConfig(base_filters=8, depth=2, norm=norm))
    optimiser = torch.optim.AdamW(unet.parameters(), lr=1e-2)
    generator = torch.manual_seed(0)
    images = torch.rand(2, 1, 24, 24, generator=generator) * 2 - 1
    masks = (images[:, 0] > -0.4).long() + (images[:, 0] > 0.4).long()
    masks[:, :4] = IGNORE
    losses = [sum(update([cross_entropy(unet(images), masks)], optimiser)) for _ in range(60)]
    assert losses[-1] < 0.1 < 0.9 < losses[0]


def test_pretraining_learns_and_keeps_the_best(tmp_path: Path) -> None:
    source, reports = square_domain(tmp_path / "s.zarr"), []
    config = overfitting()
    segmenter = pretrain(source, config, Run(reports.append))
    validated = [p.values["dice/mean"] for p in reports if "dice/mean" in p.values]
    assert len(validated) == 2
    assert not segmenter.training
    assert validate(segmenter, source, config.pretrain)["dice/mean"] == max(validated) > 0.9


def test_pretraining_needs_masks(tmp_path: Path) -> None:
    image = np.zeros((40, 40), np.uint8)
    bare = write_domain(tmp_path / "bare.zarr", [image], [None], ["train"])
    with pytest.raises(ValueError, match="'bare' .*training sections with masks"):
        pretrain(bare, SMOKE, QUIET)
    empty = write_domain(tmp_path / "empty.zarr", [image], [None], ["test"])
    with pytest.raises(ValueError, match="'empty' .*training sections"):
        train_style(bare, empty, SMOKE, QUIET)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Domain, Domain]:
    tiles = [Tile(index, 0, 0, 24, 48, (1, 0)) for index in range(3)]
    source = square_domain(tmp_path / "source.zarr")
    return source, square_domain(tmp_path / "target.zarr", bright=False, tiles=tiles)


def test_same_seed_same_weights(pair: tuple[Domain, Domain], tmp_path: Path) -> None:
    first = adapt(*pair, SMOKE, QUIET, tmp_path / "1")
    again = adapt(*pair, SMOKE, QUIET, tmp_path / "2")
    other = adapt(*pair, SMOKE.model_copy(update={"seed": 1}), QUIET, tmp_path / "3")
    for name in ("style", "source_only", "adapted"):
        assert equal_weights(getattr(first, name), getattr(again, name))
        assert not equal_weights(getattr(first, name), getattr(other, name))


def test_stages_are_reported_in_their_order(pair: tuple[Domain, Domain], tmp_path: Path) -> None:
    reports: list[Progress] = []
    models = adapt(*pair, SMOKE, Run(reports.append), tmp_path)
    assert list(dict.fromkeys(p.stage for p in reports)) == [
        "pretrain",
        "style",
        "stylise",
        "adapt",
    ]
    assert not equal_weights(models.source_only, models.adapted)
    adapted = [p.values for p in reports if p.stage == "adapt"]
    assert all({"loss_source", "loss_target"} <= set(values) for values in adapted)
    assert "dice/mean" in adapted[2]
    assert "dice/mean" not in adapted[0]


def dark_domain(store: Path) -> Domain:
    """Dark images, which no source section shows; their label: all of it is class 1."""
    images = [np.random.default_rng(n).integers(10, 30, (48, 48), np.uint8) for n in range(4)]
    squares = [np.ones((48, 48), np.uint8)] * 4
    tiles = [Tile(index, 0, 0, 48, 48, (0, 1)) for index in range(4)]
    return write_domain(store, images, squares, ["train", "train", "train", "test"], tiles)


@pytest.mark.parametrize("label_filter", [True, False])
def test_only_the_filter_brings_in_image_level_labels(tmp_path: Path, label_filter: bool) -> None:
    source, target = square_domain(tmp_path / "s.zarr"), dark_domain(tmp_path / "t.zarr")
    config = overfitting(label_filter=label_filter, steps=80)
    source_only = pretrain(source, config, QUIET)
    before = copy.deepcopy(source_only)
    stylised = stylise_domain(UNCHANGED, target, tmp_path / "x.zarr", ignore)
    adapted = adapt_segmenter(source_only, source, stylised, config, QUIET)

    dark = target.image(target.split("test")[0])
    for network, predicted in ((source_only, 0), (adapted, int(label_filter))):
        classes = segment(network, dark, config.adaptation.crop_px).argmax(axis=0)
        assert (classes == predicted).mean() > 0.9
    assert equal_weights(source_only, before)


def test_a_target_whose_labels_allow_nothing_adds_no_loss(tmp_path: Path) -> None:
    source = square_domain(tmp_path / "s.zarr")
    tiles = [Tile(index, 0, 0, 48, 48, (0, 0)) for index in range(3)]
    target = square_domain(tmp_path / "t.zarr", tiles=tiles)
    stylised = stylise_domain(UNCHANGED, target, tmp_path / "x.zarr", ignore)
    reports: list[Progress] = []
    adapt_segmenter(pretrain(source, SMOKE, QUIET), source, stylised, SMOKE, Run(reports.append))
    assert [p.values["loss_target"] for p in reports] == [0] * len(reports)
    assert min(p.values["loss_source"] for p in reports) > 0


def test_padding_of_the_target_adds_no_loss(tmp_path: Path) -> None:
    """A 40 px target in a 48 px crop learns from its own pixels alone, filtered or not."""
    source = square_domain(tmp_path / "s.zarr")
    target = square_domain(tmp_path / "t.zarr", side=40)
    stylised = stylise_domain(UNCHANGED, target, tmp_path / "x.zarr", ignore)
    seen: list[Tensor] = []

    def spy(logits: Tensor, labels: Tensor, num_known: Tensor) -> Tensor:
        seen.append(labels)
        assert num_known == (labels != IGNORE).sum()
        return cross_entropy(logits, labels, num_known)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.pseudo_labels.cross_entropy", spy)
        for label_filter in (True, False):
            config = overfitting(label_filter=label_filter, steps=1)
            with seeded_weights(0):
                segmenter = UNet(2, config.segmenter)
            adapt_segmenter(segmenter, source, stylised, config, QUIET)
    targets = seen
    assert [int((labels != IGNORE).sum()) for labels in targets] == [40 * 40, 40 * 40]


def test_a_pair_must_share_classes_and_pixel_size(tmp_path: Path) -> None:
    image = [np.zeros((8, 8), np.uint8)]
    one, renamed, finer = (
        write_domain(tmp_path / f"{name}.zarr", image, [None], ["train"], **facts)
        for name, facts in {
            "one": {},
            "renamed": {"class_names": ("background", "circle")},
            "finer": {"working_nm": 2.0},
        }.items()
    )
    check_pair(one, one)
    with pytest.raises(ValueError, match="'square'.*'circle'"):
        check_pair(one, renamed)
    with pytest.raises(ValueError, match="4.0 nm.*2.0 nm"):
        check_pair(one, finer)
