"""The loop and the three stages on small data: seeds, overfitting, selection, refusals."""

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from domains import square_domain, write_domain
from torch import Tensor, nn

from models.config import (
    AdaptationConfig,
    AugmentationConfig,
    PretrainConfig,
    SegmenterConfig,
    StyleConfig,
    StyleFilterConfig,
    preset,
)
from models.data.domain import IGNORE, Domain, Tile
from models.inference import segment, stylise_domain
from models.losses import cross_entropy, patch_nce
from models.networks.unet import UNet
from models.progress import Progress
from models.segmentation import lengths, pretrain, validate
from models.style_transfer import Cut, Schedule, train_style
from models.stylefilter import adapt, adapt_segmenter, check_pair
from models.training import KeepBest, NonFiniteLoss, random_stream, seeded_weights, train, update

SMOKE = preset("smoke")
STILL = AugmentationConfig(rotate=False, brightness=0, contrast=0, noise_sigma=0)


def ignore(progress: Progress) -> None:
    assert progress.step <= progress.total


def equal_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Stop(Exception):
    """What a caller raises to end a run."""


def test_each_step_is_reported() -> None:
    reports: list[Progress] = []
    train("style", 3, lambda: {"loss": 1.0}, report=reports.append)
    assert reports == [Progress("style", n, 3, {"loss": 1.0}) for n in (1, 2, 3)]


def test_the_callback_stops_the_loop() -> None:
    steps = []

    def stop_at_two(progress: Progress) -> None:
        if progress.step == 2:
            raise Stop

    with pytest.raises(Stop):
        train("adapt", 5, lambda: steps.append(1) or {}, report=stop_at_two)
    assert len(steps) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_before_any_weight_moves(value: float) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimiser = torch.optim.SGD([weight], lr=1)
    losses = iter([0.0, value])

    def step() -> dict[str, float]:
        return {"loss": update(weight.sum() * 0 + next(losses), optimiser)}

    with pytest.raises(NonFiniteLoss, match=f"stage pretrain, step 2: the loss is {value}"):
        train("pretrain", 5, step, report=ignore)
    assert torch.equal(weight, torch.ones(3))


def kept(scores: list[float | None], interval: int, steps: int) -> tuple[float, list[Progress]]:
    """The weight after ``steps`` steps that each add one, chosen by the given scores."""
    module, remaining, reports = nn.Linear(1, 1, bias=False), iter(scores), []
    nn.init.zeros_(module.weight)

    def step() -> dict[str, float]:
        with torch.no_grad():
            module.weight += 1
        return {}

    def score() -> dict[str, float]:
        value = next(remaining)
        return {} if value is None else {"dice/mean": value}

    keep = KeepBest(module, score, interval)
    train("pretrain", steps, step, report=reports.append, keep=keep)
    return float(module.weight), reports


def test_the_best_validated_weights_are_kept() -> None:
    weight, reports = kept([0.2, 0.7, 0.7, 0.5], interval=2, steps=7)
    assert weight == 4
    assert {p.step: p.values["dice/mean"] for p in reports if p.values} == {
        2: 0.2,
        4: 0.7,
        6: 0.7,
        7: 0.5,
    }


def test_without_validation_the_last_weights_are_kept_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert kept([None, None], interval=2, steps=4)[0] == 4
    assert "which=last reason=no_validation_masks" in caplog.text


def test_streams_depend_on_seed_and_stage() -> None:
    draws = {
        (seed, stage): float(random_stream(seed, stage).random())
        for seed in (0, 1)
        for stage in ("style", "adapt")
    }
    assert len(set(draws.values())) == 4
    assert draws[0, "adapt"] == float(random_stream(0, "adapt").random())


def test_seeded_weights_leave_the_global_stream_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    with seeded_weights(0):
        first = nn.Linear(3, 3)
    assert torch.equal(torch.rand(1), expected)
    with seeded_weights(0):
        assert equal_weights(first, nn.Linear(3, 3))


def test_schedule_in_epochs_is_the_references() -> None:
    config = StyleConfig(epochs_constant=2, epochs_decay=3)
    schedule = Schedule.of(config, num_sections=4)
    assert schedule.steps == 20
    factors = [schedule.factor(step) for step in range(1, 21)]
    assert factors[:8] == [1.0] * 8
    assert factors[8:12] == [0.75] * 4
    assert factors[12:16] == [0.5] * 4
    assert factors[16:] == [0.25] * 4


def test_schedule_in_steps_is_half_constant_half_decay() -> None:
    schedule = Schedule.of(StyleConfig(steps=5), num_sections=100)
    assert schedule.steps == 5
    assert [schedule.factor(step) for step in range(1, 6)] == pytest.approx([1, 1, 1, 2 / 3, 1 / 3])


def test_epochs_drop_the_incomplete_style_batch() -> None:
    config = StyleConfig(epochs_constant=1, epochs_decay=1, batch_size=3)
    assert Schedule.of(config, num_sections=8).steps == 4
    assert Schedule.of(config, num_sections=2).steps == 2


def test_segmentation_lengths() -> None:
    assert lengths(PretrainConfig(epochs=10), 5) == (30, 15)
    assert lengths(PretrainConfig(steps=7, validate_every_steps=2), 5) == (7, 2)
    assert lengths(PretrainConfig(validate_every_epochs=0.01), 5) == (300, 1)


def tiny_cut(**changes: object) -> tuple[Cut, Tensor, Tensor]:
    config = SMOKE.style.model_copy(update=changes)
    with seeded_weights(0):
        cut = Cut(config)
    images = torch.rand(2, 1, 1, 32, 32, generator=torch.manual_seed(0)) * 2 - 1
    return cut, images[0], images[1]


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize("flip", [True, False])
def test_step_losses_are_their_formulas(identity: bool, flip: bool) -> None:
    cut, a, b = tiny_cut(nce_identity=identity, flip_equivariance=True, lambda_nce=3)
    draws = dataclasses.replace(cut.draw((32, 32), np.random.default_rng(0)), flip=flip)
    before = copy.deepcopy(cut)
    losses = cut.step(a, b, draws)

    def nce(image: Tensor, positions: Sequence[Tensor]) -> Tensor:
        output = before.generator(image.flip(-1) if flip else image)
        queries = before.generator.encode(output)
        queries = [query.flip(-1) if flip else query for query in queries]
        pairs = zip(
            before.projector(queries, positions),
            before.projector(before.generator.encode(image), positions),
            strict=True,
        )
        terms = [patch_nce(query, key, before.config.temperature).mean() for query, key in pairs]
        return 3 * sum(terms) / 5

    fake = before.generator(a.flip(-1) if flip else a)
    old, new = before.discriminator, cut.discriminator
    expected = {
        "loss_d": (old(fake).square().mean() + (old(b) - 1).square().mean()) / 2,
        "loss_gan": (new(fake) - 1).square().mean(),
        "loss_nce": nce(a, draws.positions_a),
    }
    if identity:
        expected["loss_nce_identity"] = nce(b, draws.positions_b)
    assert losses == pytest.approx({name: v.item() for name, v in expected.items()}, rel=1e-4)


def test_keys_are_reused_from_the_generators_pass() -> None:
    cut, a, b = tiny_cut()
    passes: list[int] = []
    cut.generator.model[1].register_forward_hook(lambda *call: passes.append(len(call[2])))
    cut.step(a, b, cut.draw((32, 32), np.random.default_rng(0)))
    assert passes == [2, 2]


def test_the_coin_is_fair_and_thrown_only_for_fastcut() -> None:
    rng = np.random.default_rng(0)
    fast = tiny_cut(flip_equivariance=True)[0]
    assert 70 < sum(fast.draw((32, 32), rng).flip for _ in range(200)) < 130
    assert not any(tiny_cut()[0].draw((32, 32), rng).flip for _ in range(20))


def test_cut_overfits_one_pair() -> None:
    cut, a, b = tiny_cut(num_patches=64)
    rng = np.random.default_rng(0)
    first = cut.step(a, b, cut.draw((32, 32), rng))
    for _ in range(40):
        last = cut.step(a, b, cut.draw((32, 32), rng))
    assert last["loss_nce"] < 0.5 * first["loss_nce"]
    assert all(parameter.requires_grad for parameter in cut.discriminator.parameters())


def test_style_training_uses_training_images_only(tmp_path: Path) -> None:
    poison = np.full((40, 40), np.nan, np.float32)
    good = np.random.default_rng(0).random((40, 40), dtype=np.float32)
    domains = [
        write_domain(
            tmp_path / f"{name}.zarr",
            [good, poison, poison],
            [None] * 3,
            ["train", "val", "test"],
            intensity_window=(0, 1),
        )
        for name in "st"
    ]
    generator = train_style(*domains, SMOKE, ignore)
    assert all(bool(weight.isfinite().all()) for weight in generator.parameters())


def test_a_nan_pixel_stops_training(tmp_path: Path) -> None:
    bad = np.full((40, 40), np.nan, np.float32)
    domain = write_domain(tmp_path / "d.zarr", [bad], [np.zeros((40, 40), np.uint8)], ["train"])
    with pytest.raises(NonFiniteLoss, match="stage style, step 1: the loss is nan"):
        train_style(domain, domain, SMOKE, ignore)
    with pytest.raises(NonFiniteLoss, match="stage pretrain, step 1: the loss is nan"):
        pretrain(domain, SMOKE, ignore)


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
    losses = [update(cross_entropy(unet(images), masks), optimiser) for _ in range(60)]
    assert losses[-1] < 0.1 < 0.9 < losses[0]


def test_pretraining_learns_and_keeps_the_best(tmp_path: Path) -> None:
    source, reports = square_domain(tmp_path / "s.zarr"), []
    segmenter = pretrain(source, overfitting(), reports.append)
    validated = [p.values["dice/mean"] for p in reports if "dice/mean" in p.values]
    assert len(validated) == 2
    assert not segmenter.training
    assert validate(segmenter, source)["dice/mean"] == max(validated) > 0.9


def test_pretraining_needs_masks(tmp_path: Path) -> None:
    image = np.zeros((40, 40), np.uint8)
    bare = write_domain(tmp_path / "bare.zarr", [image], [None], ["train"])
    with pytest.raises(ValueError, match="dataset 'bare' has no training sections with masks"):
        pretrain(bare, SMOKE, ignore)
    empty = write_domain(tmp_path / "empty.zarr", [image], [None], ["test"])
    with pytest.raises(ValueError, match="dataset 'empty' has no training sections"):
        train_style(bare, empty, SMOKE, ignore)


def test_an_all_ignored_mask_leaves_finite_weights(tmp_path: Path) -> None:
    image, mask = np.full((40, 40), 9, np.uint8), np.full((40, 40), IGNORE, np.uint8)
    domain = write_domain(tmp_path / "d.zarr", [image] * 2, [mask] * 2, ["train", "val"])
    segmenter = pretrain(domain, SMOKE, ignore)
    assert all(bool(weight.isfinite().all()) for weight in segmenter.parameters())


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Domain, Domain]:
    tiles = [Tile(index, 0, 0, 24, 48, (1, 0)) for index in range(3)]
    source = square_domain(tmp_path / "source.zarr")
    return source, square_domain(tmp_path / "target.zarr", bright=False, tiles=tiles)


def test_same_seed_same_weights(pair: tuple[Domain, Domain], tmp_path: Path) -> None:
    first = adapt(*pair, SMOKE, ignore, tmp_path / "1")
    again = adapt(*pair, SMOKE, ignore, tmp_path / "2")
    other = adapt(*pair, SMOKE.model_copy(update={"seed": 1}), ignore, tmp_path / "3")
    for name in ("style", "source_only", "adapted"):
        assert equal_weights(getattr(first, name), getattr(again, name))
        assert not equal_weights(getattr(first, name), getattr(other, name))


def test_stages_are_reported_in_the_papers_order(
    pair: tuple[Domain, Domain], tmp_path: Path
) -> None:
    reports: list[Progress] = []
    models = adapt(*pair, SMOKE, reports.append, tmp_path)
    assert list(dict.fromkeys(p.stage for p in reports)) == [
        "style",
        "pretrain",
        "stylise",
        "adapt",
    ]
    assert not equal_weights(models.source_only, models.adapted)
    adapted = [p.values for p in reports if p.stage == "adapt"]
    assert all({"loss_source", "loss_target"} <= set(values) for values in adapted)
    assert "dice/mean" in adapted[2]
    assert "dice/mean" not in adapted[0]


class Identity(nn.Module):
    """A generator that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x


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
    source_only = pretrain(source, config, ignore)
    before = copy.deepcopy(source_only)
    stylised = stylise_domain(Identity(), target, tmp_path / "x.zarr", ignore)
    adapted = adapt_segmenter(source_only, source, stylised, config, ignore)

    dark = target.image(target.split("test")[0])
    assert (segment(source_only, dark).argmax(axis=0) == 0).mean() > 0.9
    assert (segment(adapted, dark).argmax(axis=0) == label_filter).mean() > 0.9
    assert equal_weights(source_only, before)


def test_a_target_whose_labels_allow_nothing_adds_no_loss(tmp_path: Path) -> None:
    source = square_domain(tmp_path / "s.zarr")
    tiles = [Tile(index, 0, 0, 48, 48, (0, 0)) for index in range(3)]
    target = square_domain(tmp_path / "t.zarr", tiles=tiles)
    stylised = stylise_domain(Identity(), target, tmp_path / "x.zarr", ignore)
    reports: list[Progress] = []
    adapt_segmenter(pretrain(source, SMOKE, ignore), source, stylised, SMOKE, reports.append)
    assert [p.values["loss_target"] for p in reports] == [0] * len(reports)
    assert min(p.values["loss_source"] for p in reports) > 0


def test_padding_of_the_target_adds_no_loss(tmp_path: Path) -> None:
    """A 40 px target in a 48 px crop learns from its own pixels alone, filtered or not."""
    source = square_domain(tmp_path / "s.zarr")
    target = square_domain(tmp_path / "t.zarr", side=40)
    stylised = stylise_domain(Identity(), target, tmp_path / "x.zarr", ignore)
    seen: list[Tensor] = []

    def spy(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels)
        return cross_entropy(logits, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.stylefilter.cross_entropy", spy)
        for label_filter in (True, False):
            config = overfitting(label_filter=label_filter, steps=1)
            with seeded_weights(0):
                segmenter = UNet(2, config.segmenter)
            adapt_segmenter(segmenter, source, stylised, config, ignore)
    targets = seen[1::2]
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
    with pytest.raises(ValueError, match="'square'.* and target classes .*'circle'.* differ"):
        check_pair(one, renamed)
    with pytest.raises(ValueError, match="4.0 nm and 2.0 nm"):
        check_pair(one, finer)
