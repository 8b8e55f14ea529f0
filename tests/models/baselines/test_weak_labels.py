"""Paul et al.: regions, losses, discriminators, and what a step of all of them is made of.

In most steps crops are whole sections, unaugmented, without dropout, and a batch is the three of
them, so that a step can be computed by hand.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from models.adaptation import Learner, Method, Pair, adapt_by, source_loss
from models.baselines import adversaries, weak_labels
from models.baselines.class_discriminators import ClassDiscriminators, OutputDiscriminator
from models.baselines.pooling import at_squares, pooled
from models.baselines.regions import Regions, labelled_crop, tiles_of
from models.baselines.weak_labels import adapt_weak_labels
from models.config import AugmentationConfig, StyleFilterConfig, WeakLabelsConfig
from models.data.domain import IGNORE, Domain, Tile
from models.data.labels import ABSENT, PRESENT, UNKNOWN
from models.data.samples import Crop, SourceBatch, source_batch
from models.data.sampling import Sample, Sampler
from models.data.stylised import StylisedDomain
from models.losses import class_features, domain_loss, smooth_maximum, weak_label_loss
from models.networks.unet import UNet
from models.segmentation import adamw, pixels_of_all
from models.training.identity import MethodFacts
from models.training.loop import Run, seeded_weights, update
from models.training.progress import Progress, Stop
from models.training.resume import Checkpoints
from tests.models.domains import QUIET, equal_weights, squares, write_domain
from tests.models.stage_process import inverted, tiny

U, A, P = UNKNOWN, ABSENT, PRESENT


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))


# --- losses ---------------------------------------------------------------------------------------

SIZES = torch.tensor([[64.0, 3, 10, 0], [1, 0, 0, 0], [8, 8, 8, 8]], dtype=torch.float64)


def pixels(region: int, values: Tensor) -> list[Tensor]:
    """A region's values, once for every pixel of its positions."""
    sizes = SIZES[region].int().tolist()
    return [value for value, size in zip(values, sizes, strict=True) for _ in range(size)]


def smooth_maximum_loop(logits: Tensor, k: float) -> Tensor:
    result = torch.zeros(logits.shape[0], logits.shape[2], dtype=torch.float64)
    for r, c in np.ndindex(*result.shape):
        exps = [math.exp(k * float(a)) for a in pixels(r, logits[r, :, c])]
        result[r, c] = 1 / (1 + math.exp(-math.log(sum(exps) / len(exps)) / k))
    return result


@pytest.mark.parametrize("k", [0.1, 1.0, 7.0])
def test_smooth_maximum_is_the_equation(k: float) -> None:
    logits = noise(0, 3, 4, 5)
    torch.testing.assert_close(smooth_maximum(logits, SIZES, k), smooth_maximum_loop(logits, k))


def test_smooth_maximum_lies_between_mean_and_maximum() -> None:
    logits, sizes = (
        torch.tensor([[[4.0], [-2.0], [1.0], [99.0]]]),
        torch.tensor([[1.0, 1, 1, 0]]).double(),
    )
    low, high = (float(smooth_maximum(logits.double(), sizes, k)) for k in (1e-6, 1e3))
    assert low == pytest.approx(1 / (1 + math.exp(-1.0)), abs=1e-5)  # the mean of three
    assert high == pytest.approx(1 / (1 + math.exp(-4.0)), abs=1e-4)
    equal = torch.full((1, 4, 1), 0.7)
    assert float(smooth_maximum(equal, sizes, 1.0)) == pytest.approx(1 / (1 + math.exp(-0.7)))


def test_smooth_maximum_teaches_positions_by_their_share() -> None:
    """d p / d a = p (1 - p) times the softmax over the region's pixels."""
    logits = noise(0, 3, 4, 2).requires_grad_()
    p = smooth_maximum(logits, SIZES, 1.0)
    (gradient,) = torch.autograd.grad(p.sum(), logits)
    shares = SIZES[..., None] * logits.detach().exp()
    expected = (p * (1 - p))[:, None] * shares / shares.sum(1, keepdim=True)
    torch.testing.assert_close(gradient, expected)
    assert float(gradient[0, 3].abs().sum()) == 0  # no position


def label_loss_loop(p: Tensor, labels: Tensor) -> float:
    errors = []
    for r, c in np.ndindex(*p.shape):
        value = min(max(float(p[r, c]), 1e-7), 1 - 1e-7)
        if labels[r, c] != U:
            errors.append(-math.log(value if labels[r, c] == P else 1 - value))
    return sum(errors) / len(errors)


def test_label_loss_is_the_mean_over_known_labels() -> None:
    p = noise(0, 4, 5).sigmoid()
    p[0, 0], p[0, 1] = 0, 1
    labels = torch.from_numpy(np.random.default_rng(0).integers(-1, 2, (4, 5)))
    labels[0, 0], labels[0, 1] = P, A
    expected = label_loss_loop(p, labels)
    assert float(weak_label_loss(p, labels)) == pytest.approx(expected, rel=1e-12)
    known = (labels != U).sum()
    in_parts = [weak_label_loss(p[i : i + 2], labels[i : i + 2], known) for i in (0, 2)]
    assert float(sum(in_parts)) == pytest.approx(expected, rel=1e-12)
    assert float(weak_label_loss(torch.tensor([[0.25, 0.3]]), torch.tensor([[P, U]]))) == (
        pytest.approx(math.log(4))
    )


@pytest.mark.parametrize("shape", [(3, 4), (0, 4)])
@pytest.mark.parametrize("num_known", [None, torch.tensor(0.0, dtype=torch.float64)])
def test_without_known_labels_the_loss_and_its_gradient_are_zero(
    shape: tuple[int, int], num_known: Tensor | None
) -> None:
    logits = noise(0, shape[0], 4, 4).requires_grad_()
    p = smooth_maximum(logits, torch.ones(shape[0], 4), 1.0)
    loss = weak_label_loss(p, torch.full(shape, U), num_known)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_unknown_labels_teach_nothing() -> None:
    p = noise(0, 2, 3).sigmoid().requires_grad_()
    weak_label_loss(p, torch.tensor([[U, P, A], [U, U, U]])).backward()
    assert (p.grad != 0).tolist() == [[False, True, True], [False, False, False]]


def class_features_loop(features: Tensor, logits: Tensor) -> Tensor:
    regions, _, classes = logits.shape
    result = torch.zeros(regions, classes, features.shape[2], dtype=torch.float64)
    for r, c in np.ndindex(regions, classes):
        attention = [math.exp(float(a)) for a in pixels(r, logits[r, :, c])]
        for weight, feature in zip(attention, pixels(r, features[r]), strict=True):
            result[r, c] += weight / sum(attention) * feature
    return result


def test_class_features_are_the_equation() -> None:
    features, logits = noise(0, 3, 4, 6), noise(1, 3, 4, 5)
    expected = class_features_loop(features, logits)
    torch.testing.assert_close(class_features(features, logits, SIZES), expected)
    sure = torch.full((3, 4, 5), -1e4, dtype=torch.float64)
    sure[:, 0] = 0
    torch.testing.assert_close(
        class_features(features, sure, SIZES), features[:, :1].expand(3, 5, 6)
    )


def test_no_gradient_into_the_attention() -> None:
    features, logits = noise(0, 3, 4, 6).requires_grad_(), noise(1, 3, 4, 5).requires_grad_()
    class_features(features, logits, SIZES).sum().backward()
    assert logits.grad is None
    assert float(features.grad[SIZES > 0].abs().min()) > 0
    assert float(features.grad[SIZES == 0].abs().max()) == 0


@pytest.mark.parametrize("target", [True, False])
def test_domain_loss_is_the_weighted_cross_entropy(target: bool) -> None:
    scores, weights = noise(0, 3, 4), noise(1, 3, 4).abs()
    expected = sum(
        float(w) * -math.log(1 / (1 + math.exp(-float(s if target else -s))))
        for s, w in zip(scores.ravel(), weights.ravel(), strict=True)
    )
    assert float(domain_loss(scores, weights, target=target)) == pytest.approx(expected)
    scores.requires_grad_()
    nothing = domain_loss(scores, torch.zeros_like(weights), target=target)
    nothing.backward()
    assert nothing.item() == 0
    assert torch.equal(scores.grad, torch.zeros_like(scores))


def test_losses_are_computed_in_full_precision() -> None:
    logits, sizes = torch.full((1, 2, 3), 0.3, dtype=torch.bfloat16), torch.ones(1, 2)
    assert smooth_maximum(logits, sizes, 1.0).dtype == torch.float32
    assert class_features(logits, logits, sizes).dtype == torch.float32
    assert domain_loss(logits, torch.ones(1, 2, 3), target=True).dtype == torch.float32


# --- regions --------------------------------------------------------------------------------------

TILES = {
    # Of a section of 12 x 16: y0, x0, height, width, labels.
    "whole": Tile(0, 2, 4, 4, 4, (P, A, U)),
    "cut": Tile(0, 6, 6, 6, 8, (P, A, U)),
    "covered": Tile(0, 2, 8, 4, 4, (P, A, P)),
    "covers": Tile(0, 2, 10, 2, 2, (A, P, A)),
    "outside": Tile(0, 0, 0, 2, 16, (P, P, P)),
    "hidden": Tile(0, 8, 2, 2, 2, (P, P, P)),
    "hides": Tile(0, 8, 2, 2, 2, (A, A, P)),
}
"""The order is that of a dataset: later tiles prevail."""


def tiled(folder: Path, tiles: Sequence[Tile], **info: Any) -> Domain:
    image, classes = np.zeros((12, 16), np.uint8), ("a", "b", "c")
    return write_domain(
        folder / "tiled.zarr", [image], [None], ["train"], tiles, class_names=classes, **info
    )


EXPECTED_MAP = [
    # Rows 2 to 9, columns 2 to 9 and 10, 11: the window of 8 x 10 cut to 8 x 8 below.
    "..wwwwcc",
    "..wwwwcc",
    "..wwwwcc",
    "..wwwwcc",
    "....tttt",
    "....tttt",
    "hh..tttt",
    "hh..tttt",
]
NAMES = {"whole": "w", "cut": "t", "covered": "c", "hides": "h"}


def by_letter(numbers: NDArray[np.int64], letters: str) -> list[str]:
    return ["".join("." if n < 0 else letters[n] for n in row) for row in numbers]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_tiles_of_a_crop(tmp_path: Path, turns: int, mirrored: bool) -> None:
    domain = tiled(tmp_path, list(TILES.values()))
    crop = Crop(domain.sections[0], 2, 2, 8, turns, mirrored)
    numbers, labels = tiles_of(domain, crop)
    letters = np.array([list(row) for row in EXPECTED_MAP])
    turned = np.rot90(letters[:, ::-1] if mirrored else letters, turns)
    assert by_letter(numbers, "wtch") == ["".join(row) for row in turned]
    assert labels.tolist() == [[P, A, U], [U, A, U], [U, A, U], [A, A, P]]


def test_a_tile_covered_by_another_is_cut(tmp_path: Path) -> None:
    domain = tiled(tmp_path, [TILES["covered"], TILES["covers"]])
    numbers, labels = tiles_of(domain, Crop(domain.sections[0], 0, 0, 16))
    assert labels.tolist() == [[U, A, U], [A, P, A]]
    assert np.bincount(numbers.ravel() + 1).tolist() == [16 * 16 - 16, 12, 4]


@pytest.mark.parametrize("turns", range(4))
def test_padding_is_in_no_region(tmp_path: Path, turns: int) -> None:
    everything = Tile(0, 0, 0, 12, 16, (P, A, U))
    domain = tiled(tmp_path, [everything])
    crop = Crop(domain.sections[0], 0, 0, 20, turns)
    numbers, labels = tiles_of(domain, crop)
    inside = crop.padded(np.ones((12, 16), bool), fill=False)
    assert np.array_equal(numbers == 0, inside)
    assert labels.tolist() == [[P, A, U]]
    mask = np.where(inside, 2, IGNORE).astype(np.int64)
    mask[inside] = np.arange(12 * 16) % 2 * 2  # classes 0 and 2
    of_source, present = labelled_crop(mask, 3)
    assert np.array_equal(of_source, numbers)
    assert present.tolist() == [[P, A, P]]
    # Nor are pixels that nobody labelled.
    mask[mask == 2] = IGNORE
    of_source, present = labelled_crop(mask, 3)
    assert np.array_equal(of_source == 0, mask == 0)
    assert present.tolist() == [[P, A, A]]


def test_the_tiles_at_the_working_pixel_size(tmp_path: Path) -> None:
    domain = tiled(tmp_path, list(TILES.values()), working_nm=8.0)
    crop = Crop(domain.sections[0], 1, 1, 4, 1)
    numbers, labels = tiles_of(domain, crop)
    halved = np.array([list(row) for row in EXPECTED_MAP])[::2, ::2]
    assert by_letter(numbers, "wtch") == ["".join(row) for row in np.rot90(halved)]
    assert labels.tolist() == [[P, A, U], [U, A, U], [U, A, U], [A, A, P]]


def test_what_is_absent_in_a_region_is_not_allowed_in_its_pixels(tmp_path: Path) -> None:
    """The regions' map and the filter's are of the same geometry."""
    domain = tiled(tmp_path, list(TILES.values()))
    for turns in range(4):
        crop = Crop(domain.sections[0], 3, 1, 9, turns, mirrored=True)
        numbers, labels = tiles_of(domain, crop)
        window = domain.allowed(crop.section, crop.rows, crop.cols)
        allowed = crop.completed(window, fill=True)
        absent = np.append(labels == A, np.zeros((1, 3), bool), axis=0)[numbers]
        assert np.array_equal(np.moveaxis(absent, 2, 0), ~allowed)


def random_regions(seed: int, side: int = 13, pool: int = 4) -> tuple[list[Any], Regions]:
    """Two crops of three and two regions of no particular shape, and one without any."""
    rng, crops = np.random.default_rng(seed), []
    for number in (3, 0, 2):
        numbers = rng.integers(-1, number, (side, side)) if number else np.full((side, side), -1)
        crops.append((numbers, rng.integers(-1, 2, (number, 4))))
    return crops, Regions.of(crops, pool)


def test_pooling_is_the_mean_of_the_pixels_of_a_region_in_a_square() -> None:
    crops, regions = random_regions(0)
    values, coarse = noise(0, 3, 6, 13, 13), noise(1, 3, 6, 3, 3)
    values[1] = torch.nan  # of no region
    assert np.array_equal(regions.labels, np.concatenate([labels for _, labels in crops]))
    means, picked = pooled(values, regions), at_squares(coarse, regions, 4)
    row = 0
    for crop, (numbers, labels) in enumerate(crops):
        for region in range(len(labels)):
            place = 0
            for y, x in np.ndindex(4, 4):
                window = np.s_[4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
                inside = torch.from_numpy(numbers[window] == region)
                if not inside.any():
                    continue
                assert regions.sizes[row, place] == inside.sum()
                expected = values[crop][:, *window][:, inside].mean(1)
                torch.testing.assert_close(means[row, place], expected)
                at = coarse[crop, :, min(y, 2), min(x, 2)]
                assert torch.equal(picked[row, place], at)
                place += 1
            assert regions.sizes[row, place:].sum() == 0
            row += 1
    assert row == len(regions.sizes)


def test_the_coarse_value_of_a_square_is_that_at_its_middle() -> None:
    regions = Regions.of([(np.zeros((32, 32), np.int64), np.ones((1, 1), np.int64))], 8)
    values = torch.arange(4.0).reshape(1, 1, 2, 2)
    rows = at_squares(values, regions, 16).reshape(4, 4)
    assert rows.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_crops_without_regions_can_be_pooled() -> None:
    regions = Regions.of([(np.full((9, 9), -1), np.zeros((0, 4), np.int64))], 4)
    values = noise(0, 1, 4, 9, 9).requires_grad_()
    p = smooth_maximum(pooled(values, regions), torch.from_numpy(regions.sizes), 1.0)
    assert p.shape == (0, 4)
    weak_label_loss(p, torch.from_numpy(regions.labels)).backward()
    assert torch.equal(values.grad, torch.zeros_like(values))


# --- discriminators -------------------------------------------------------------------------------


def test_each_class_has_a_discriminator_of_its_own() -> None:
    with seeded_weights(0):
        network = ClassDiscriminators(3, 8).double()
    features = noise(0, 4, 3, 8).requires_grad_()
    scores = network(features)
    assert scores.shape == (4, 3)
    (gradient,) = torch.autograd.grad(scores[2, 1], features)
    assert gradient.abs().sum(2).nonzero().tolist() == [[2, 1]]
    first, _, second, _, last = network.mlps[1]
    hidden = second(first(features[2, 1]).relu()).relu()
    torch.testing.assert_close(last(hidden)[0], scores[2, 1])
    assert [layer.weight.shape for layer in (first, second, last)] == [(8, 8), (8, 8), (1, 8)]
    assert not torch.equal(network.mlps[0][0].weight, first.weight)


@pytest.mark.parametrize(("side", "scores"), [(32, 1), (63, 1), (128, 4), (500, 15)])
def test_the_output_is_judged_in_patches(side: int, scores: int) -> None:
    network = OutputDiscriminator(3, 4)
    assert network(torch.zeros(2, 3, side, side)).shape == (2, 1, scores, scores)
    widths = [layer.weight.shape[:2] for layer in network.model[::2]]
    assert widths == [(4, 3), (8, 4), (16, 8), (32, 16), (1, 32)]
    inside = torch.zeros(2, side, side, dtype=torch.bool)
    inside[1, -1, 0] = True
    judged = OutputDiscriminator.judged(inside)
    assert judged.nonzero().tolist() == [[1, 0, scores - 1, 0]]


# --- a step ---------------------------------------------------------------------------------------

STILL = AugmentationConfig(rotate=False, brightness=0, contrast=0, noise_sigma=0)
GROUP, BATCH = {"norm": "group"}, {"norm": "batch"}
WITHOUT = {"weight_class_alignment": 0.0, "weight_output_alignment": 0.0}
LABELS = [((P, A), (P, P)), ((P, P), (P, U)), ((U, U), (P, A))]
"""Of the left and the right half of each section."""

Domains = tuple[Domain, StylisedDomain]


def whole_sections(
    segmenter: Mapping[str, str] = GROUP, weak: Mapping[str, Any] | None = None, **changes: Any
) -> StyleFilterConfig:
    stage = {"crop_px": 48, "batch_size": 3, "augmentation": STILL, "select_on": "last"}
    config = tiny({**stage, "steps": 1, **changes}, segmenter)
    ours = {"dropout": 0.0, "discriminator_filters": 4, "clip_norm": 1e3, **(weak or {})}
    return config.model_copy(update={"weak_labels": WeakLabelsConfig(**ours)})


def untrained(config: StyleFilterConfig) -> UNet:
    with seeded_weights(1):
        return UNet(2, config.segmenter)


def domains_of(folder: Path, labels: Any = LABELS) -> Domains:
    tiles = [
        Tile(section, 0, 24 * half, 48, 24, of_half)
        for section, halves in enumerate(labels)
        for half, of_half in enumerate(halves)
    ]
    pairs = {
        bright: [squares(48, seed + 10 * bright, bright=bright) for seed in range(4)]
        for bright in (True, False)
    }
    splits: Any = ["train", "train", "train", "val"]
    source = write_domain(
        folder / "source.zarr", *zip(*pairs[True], strict=True), splits, digest="source"
    )
    target = write_domain(
        folder / "target.zarr", *zip(*pairs[False], strict=True), splits, tiles, digest="target"
    )
    return source, inverted(target, folder)


@pytest.fixture
def domains(tmp_path: Path) -> Domains:
    return domains_of(tmp_path)


def adapted(
    config: StyleFilterConfig, domains: Domains, start: UNet | None = None
) -> tuple[UNet, list[Progress]]:
    reports: list[Progress] = []
    segmenter = adapt_weak_labels(start or untrained(config), *domains, config, Run(reports.append))
    return segmenter, reports


def losses_of(report: Progress) -> dict[str, float]:
    return {name: value for name, value in report.values.items() if "loss" in name}


def images(domain: Domain) -> Tensor:
    """All training sections, (3, 1, 48, 48) in [0, 1]."""
    sections = [domain.image(section) for section in domain.split("train")]
    return torch.from_numpy(np.stack(sections))[:, None]


def masks(domain: Domain) -> Tensor:
    sections = [domain.mask(section) for section in domain.split("train")]
    return torch.from_numpy(np.stack(sections).astype(np.int64))


@dataclass
class Step:
    """What each update of a run was given: the gradients of its weights, before clipping."""

    gradients: list[list[Tensor]] = field(default_factory=list)
    clip_norms: list[float] = field(default_factory=list)


@contextmanager
def spying() -> Iterator[Step]:
    step = Step()

    def updating(losses: Any, optimiser: torch.optim.Optimizer, **clipped: float) -> list[float]:
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        before = [weight.detach().clone() for weight in weights]
        values = update(losses, optimiser, **clipped)
        assert not all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))
        step.clip_norms.append(clipped.get("clip_norm", math.inf))
        step.gradients.append([w.grad.clone() for w in weights])
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weak_labels, "update", updating)
        patch.setattr(adversaries, "update", updating)
        yield step


@dataclass
class ByHand:
    """A first step in plain torch: losses, and gradients of the segmenter and discriminators."""

    losses: dict[str, float]
    segmenter: list[Tensor]
    discriminators: list[list[Tensor]]


Region = tuple[Tensor, Tensor, Sequence[int]]
"""Logits (1, C, H, W), pooled features (1, D, H / 8, W / 8), and one label per class."""


def through(segmenter: UNet, domain: Domain, *, coarse: bool) -> tuple[Tensor, Tensor]:
    """Logits (3, 2, 48, 48), and features in squares of 8 px (3, D, 6, 6)."""
    encoded = segmenter.encode(images(domain) * 2 - 1)
    decoded = segmenter.decode(encoded)
    # A square of 8 px is two of the bottleneck's of 4 px: its middle is in the second.
    grid = encoded[-1][:, :, 1::2, 1::2] if coarse else F.avg_pool2d(decoded, 8)
    return segmenter.head(decoded), grid


def hand_class_loss(
    network: ClassDiscriminators, regions: Sequence[Region], wanted: float
) -> Tensor:
    means = []
    for logits, grid, labels in regions:
        attention = F.avg_pool2d(logits, 8)[0].detach().flatten(1).softmax(1)
        features = [(grid[0].flatten(1) * of_class).sum(1) for of_class in attention]
        scores = [network.mlps[c](features[c]) for c in range(2) if labels[c] == P]
        errors = [F.binary_cross_entropy_with_logits(s, s * 0 + wanted) for s in scores]
        if errors:
            means.append(torch.stack(errors).mean())
    return torch.stack(means).mean()


def hand_label_loss(regions: Sequence[Region]) -> Tensor:
    errors = []
    for logits, _, labels in regions:
        p = F.avg_pool2d(logits, 8)[0].exp().mean((1, 2)).log().sigmoid()
        known = [c for c in range(2) if labels[c] != U]
        errors += [-(p[c] if labels[c] == P else 1 - p[c]).log() for c in known]
    return torch.stack(errors).mean()


def by_hand(config: StyleFilterConfig, domains: Domains) -> ByHand:
    weak, segmenter = config.weak_labels, untrained(config)
    coarse = weak.feature == "bottleneck"
    with seeded_weights(config.seed):
        classes = ClassDiscriminators(2, 16 if coarse else 4)
        output = OutputDiscriminator(2, weak.discriminator_filters)

    def class_loss(regions: Sequence[Region], wanted: float) -> Tensor:
        return hand_class_loss(classes, regions, wanted)

    def output_loss(logits: Tensor, wanted: float) -> Tensor:
        scores = output(logits.softmax(1))
        return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, wanted))

    x_s, x_t = (through(segmenter, domain, coarse=coarse) for domain in domains)
    of_source: list[Region] = []
    of_target: list[Region] = []
    for n in range(3):
        found = masks(domains[0])[n].unique().tolist()
        of_source.append((x_s[0][n : n + 1], x_s[1][n : n + 1], [int(c in found) for c in (0, 1)]))
        for half in (0, 1):
            logits = x_t[0][n : n + 1, ..., 24 * half : 24 * half + 24]
            of_target.append(
                (logits, x_t[1][n : n + 1, ..., 3 * half : 3 * half + 3], LABELS[n][half])
            )
    terms = {
        "loss_source": F.cross_entropy(x_s[0], masks(domains[0])),
        "loss_labels": hand_label_loss(of_target),
        "loss_class_alignment": class_loss(of_target, 0.0),
        "loss_output_alignment": output_loss(x_t[0], 0.0),
    }
    learnt = {
        "loss_class_discriminator": (class_loss(of_source, 0.0) + class_loss(of_target, 1.0)) / 2,
        "loss_output_discriminator": (output_loss(x_s[0], 0.0) + output_loss(x_t[0], 1.0)) / 2,
    }
    weights = (1, weak.weight_labels, weak.weight_class_alignment, weak.weight_output_alignment)
    total = sum(w * term for w, term in zip(weights, terms.values(), strict=True))

    def gradients_of(loss: Any, network: nn.Module) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(network.parameters()), retain_graph=True))

    pairs = zip(learnt.values(), (classes, output), strict=True)
    return ByHand(
        {name: loss.item() for name, loss in (terms | learnt).items()},
        gradients_of(total, segmenter),
        [gradients_of(*pair) for pair in pairs],
    )


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("feature", ["decoder", "bottleneck"])
def test_a_step_is_the_sum_of_its_terms(domains: Domains, feature: str, accumulate: int) -> None:
    heavy = {"weight_labels": 2.0, "weight_class_alignment": 5.0, "weight_output_alignment": 7.0}
    config = whole_sections(weak={**heavy, "feature": feature}, accumulate=accumulate)
    with spying() as step:
        reports = adapted(config, domains)[1]
    expected = by_hand(config, domains)
    assert losses_of(reports[0]) == pytest.approx(expected.losses, rel=1e-5)
    assert len(step.gradients) == 3
    for actual, wanted in zip(
        step.gradients, [expected.segmenter, *expected.discriminators], strict=True
    ):
        assert len(actual) == len(wanted)
        for one, other in zip(actual, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
            assert float(other.abs().max()) > 0


def test_the_segmenters_step_leaves_no_gradient_in_the_discriminators(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []

    def updating(losses: Any, *_: object, **__: object) -> list[float]:
        for loss in losses:
            loss.backward()
        return [0.0]

    def learn(adversary: adversaries.Adversary, _: object) -> float:
        weights = list(adversary.network.parameters())
        kept.append(all(weight.grad is None for weight in weights))
        assert all(weight.requires_grad for weight in weights)
        return 0.0

    monkeypatch.setattr(weak_labels, "update", updating)
    monkeypatch.setattr(adversaries.Adversary, "learn", learn)
    adapted(whole_sections(), domains)
    assert kept == [True, True]


def gradients(domains: Domains, **weak: Any) -> dict[str, Tensor]:
    """Of the segmenter's first step, by the layer's name."""
    config = whole_sections(weak={"weight_labels": 0.0, **WITHOUT, **weak})
    with spying() as step:
        adapted(config, domains)
    names = [name for name, _ in untrained(config).named_parameters()]
    return dict(zip(names, step.gradients[0], strict=True))


@pytest.mark.parametrize(
    ("weak", "reached"),
    [
        ({"weight_labels": 1.0}, {"stem", "downs", "ups", "head"}),
        ({"weight_output_alignment": 1.0}, {"stem", "downs", "ups", "head"}),
        ({"weight_class_alignment": 1.0}, {"stem", "downs", "ups"}),
        ({"weight_class_alignment": 1.0, "feature": "bottleneck"}, {"stem", "downs"}),
    ],
    ids=["labels", "output", "class", "bottleneck"],
)
def test_each_term_reaches_its_own_layers(
    domains: Domains, weak: Mapping[str, Any], reached: set[str]
) -> None:
    """The classes' attention gives no gradient to the logits, so none to the head."""
    without, with_term = gradients(domains), gradients(domains, **weak)
    differing = {
        name.split(".")[0] for name in without if not torch.equal(without[name], with_term[name])
    }
    assert differing == reached


def test_only_present_classes_are_aligned(tmp_path: Path) -> None:
    """Nothing but the second class is known to be present, so its discriminator alone learns."""
    source, target = domains_of(tmp_path, [((U, P), (A, U))] * 3)
    for section in range(3):
        source.mask(source.sections[section]).setflags(write=True)
        source.mask(source.sections[section])[:] = 1
    with spying() as step:
        adapted(whole_sections(), (source, target))
    sizes = [float(gradient.abs().max()) for gradient in step.gradients[1]]
    assert max(sizes[:6]) == 0  # the first class's weights and biases
    assert min(sizes[6:]) > 0


def test_the_segmenters_gradient_is_clipped_and_the_discriminators_is_not(
    domains: Domains,
) -> None:
    with spying() as step:
        adapted(whole_sections(weak={"clip_norm": 1e-3}), domains)
    norms = [float(torch.stack([g.norm() for g in of]).norm()) for of in step.gradients]
    assert norms[0] == pytest.approx(1e-3, rel=1e-4)
    assert min(norms[1:]) > 2e-3
    assert step.clip_norms == [1e-3, math.inf, math.inf]


def test_discriminators_are_adam_at_their_own_rate() -> None:
    config = whole_sections(weak={"learning_rate": 3e-3})
    made = adversaries.adversaries(untrained(config), config.weak_labels, "float32")
    for adversary in made.values():
        assert isinstance(adversary.optimiser, torch.optim.Adam)
        assert adversary.optimiser.defaults["lr"] == 3e-3
        assert adversary.optimiser.defaults["betas"] == (0.9, 0.99)


# --- rows -----------------------------------------------------------------------------------------


def learnt_by(config: StyleFilterConfig, domains: Domains, start: UNet, *, labels: bool) -> UNet:
    """In the common loop, without anything adversarial: CE(x_s, m_s), and perhaps BCE(x_t, l_t)."""
    stage, weak = config.adaptation, config.weak_labels
    Batch = tuple[SourceBatch, weak_labels.Part]

    def learner(segmenter: UNet) -> Learner[Batch]:
        ours = weak_labels._WeakLabels(segmenter, Pair(*domains), config)
        optimiser = adamw(segmenter, stage)

        def batch(x_s: Sequence[Sample], x_t: Sequence[Sample]) -> Batch:
            source = source_batch(domains[0], copy.deepcopy(x_s), stage)
            return source, ours._batch(x_s, x_t)[0]

        def step(batch: Batch) -> Mapping[str, float]:
            segmenter.train()
            source, part = batch
            known = pixels_of_all(source.masks != IGNORE, torch.device("cpu"))

            def losses() -> Iterator[Tensor]:
                yield source_loss(segmenter, source, stage, known)
                if not labels:
                    return
                logits = segmenter(torch.from_numpy(part.target.images) * 2 - 1)
                regions = part.target.regions
                kept = at_squares(torch.from_numpy(part.kept), regions, weak.pool_px)
                dropped = pooled(logits, regions) * kept / (1 - weak.dropout)
                p = smooth_maximum(dropped, torch.from_numpy(regions.sizes), weak.smoothness)
                bce = weak_label_loss(p, torch.from_numpy(regions.labels))
                yield weak.weight_labels * bce

            return {"loss": sum(update(losses(), optimiser, clip_norm=weak.clip_norm))}

        return Learner(batch, step, {"segmenter": optimiser})

    method = Method(learner, MethodFacts(labels=False, settings={"method": "by hand"}))
    return adapt_by(method, start, Pair(*domains), config, QUIET)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_without_weights_it_is_the_row_without_bit_for_bit(domains: Domains, norm: str) -> None:
    changes = {"steps": 4, "augmentation": AugmentationConfig(), "crop_px": 32, "batch_size": 2}

    def config(**weak: float) -> StyleFilterConfig:
        ours = {"dropout": 0.1, "clip_norm": 1.0, "weight_labels": 2.0, **weak}
        return whole_sections({"norm": norm}, ours, **changes)

    start = untrained(config())
    plain = learnt_by(config(weight_labels=0.0), domains, start, labels=False)
    labelled = learnt_by(config(**WITHOUT), domains, start, labels=True)
    assert equal_weights(adapted(config(**WITHOUT), domains, start)[0], labelled)
    nothing = config(weight_labels=0.0, **WITHOUT)
    assert equal_weights(adapted(nothing, domains, start)[0], plain)
    assert not equal_weights(labelled, plain)
    assert not equal_weights(start, plain)
    heavy = config(weight_class_alignment=10.0, weight_output_alignment=10.0)
    assert not equal_weights(adapted(heavy, domains, start)[0], labelled)


@pytest.mark.parametrize(
    ("weak", "names"),
    [
        ({}, {"class", "output"}),
        ({"weight_class_alignment": 0.0}, {"output"}),
        ({"weight_output_alignment": 0.0}, {"class"}),
        (WITHOUT, set()),
    ],
)
def test_an_alignment_of_weight_zero_has_no_discriminator(
    domains: Domains, weak: Mapping[str, Any], names: set[str], tmp_path: Path
) -> None:
    config, reports = whole_sections(weak=weak), list[Progress]()
    run = Run(reports.append, Checkpoints(tmp_path / "saved"))
    adapt_weak_labels(untrained(config), *domains, config, run)
    state = torch.load(tmp_path / "saved" / "adapt-0.pt", weights_only=True)
    assert state["modules"].keys() == {"segmenter", *names}
    assert state["optimisers"].keys() == {"segmenter", *names}
    expected = {f"loss_{name}_{what}" for name in names for what in ("alignment", "discriminator")}
    assert losses_of(reports[0]).keys() == {"loss_source", "loss_labels", *expected}


def test_dropout_is_for_the_label_loss_alone_and_draws_anew(domains: Domains) -> None:
    at_rest = {"steps": 2, "learning_rate": 1e-12}
    plain, dropped = (
        [losses_of(r) for r in adapted(whole_sections(weak={"dropout": p}, **at_rest), domains)[1]]
        for p in (0.0, 0.4)
    )
    assert plain[1]["loss_labels"] == pytest.approx(plain[0]["loss_labels"], rel=1e-5)
    assert dropped[1]["loss_labels"] != pytest.approx(dropped[0]["loss_labels"], rel=1e-3)
    for name, value in plain[0].items():
        assert (dropped[0][name] == value) == (name != "loss_labels")


def test_dropout_drops_pooled_logits_and_scales_the_rest(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[float, Tensor] = {}
    for dropout in (0.0, 0.25):

        def note(logits: Tensor, *rest: Any, dropout: float = dropout) -> Tensor:
            seen[dropout] = logits.detach()
            return smooth_maximum(logits, *rest)

        monkeypatch.setattr(weak_labels, "smooth_maximum", note)
        adapted(whole_sections(weak={"dropout": dropout}), domains)
    kept = seen[0.25] != 0
    torch.testing.assert_close(seen[0.25][kept], seen[0.0][kept] / 0.75)
    assert kept.shape == (6, 18, 2)
    assert 0.6 < float(kept.double().mean()) < 0.9


def test_crops_without_labels_or_tiles_leave_the_source_to_learn(tmp_path: Path) -> None:
    config = whole_sections(weak=WITHOUT)
    for labels in ([((U, U), (U, U))] * 3, []):
        domains = domains_of(tmp_path / str(len(labels)), labels)
        segmenter, reports = adapted(config, domains)
        assert reports[0].values["loss_labels"] == 0
        assert equal_weights(segmenter, learnt_by(config, domains, untrained(config), labels=False))
        full = adapted(whole_sections(), domains)[1][0].values
        assert full["loss_class_alignment"] == 0
        assert full["loss_class_discriminator"] > 0  # of the source


# --- what it sees ---------------------------------------------------------------------------------


def first_inputs(config: StyleFilterConfig, domains: Domains) -> list[Tensor]:
    """Of the source and of the target, in the first step."""
    seen: list[Tensor] = []
    encode = UNet.encode

    def noting(segmenter: UNet, x: Tensor) -> list[Tensor]:
        seen.append(x.detach().clone())
        return encode(segmenter, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UNet, "encode", noting)
        adapted(config, domains)
    return seen[:2]


@pytest.mark.parametrize("view", ["stylised", "raw", "both"])
def test_it_sees_the_target_as_given_whatever_the_students_view(
    domains: Domains, view: str
) -> None:
    _, target = first_inputs(whole_sections(student_view=view), domains)
    sampler = Sampler(domains[1].training_sections(), 0, "adapt", "target")
    order = [sample.section.index for sample in sampler.batch(1, 3)]
    assert torch.equal(target, images(domains[1])[order] * 2 - 1)
    assert not torch.equal(target, images(domains[1].raw)[order] * 2 - 1)


def test_regions_and_padding_lie_where_the_images_do(domains: Domains) -> None:
    """No image is black anywhere, so the crops show where their padding is."""
    turned = AugmentationConfig(brightness=0, contrast=0, noise_sigma=0)
    config = whole_sections(crop_px=64, augmentation=turned)
    ours = weak_labels._WeakLabels(untrained(config), Pair(*domains), config)
    samplers = [
        Sampler(domain.training_sections(), 0, "adapt", purpose)
        for domain, purpose in zip(domains, ("source", "target"), strict=True)
    ]
    places = set()
    for step in range(1, 5):
        (part,) = ours._batch(*(sampler.batch(step, 3) for sampler in samplers))
        for crops in (part.source, part.target):
            assert np.array_equal(crops.inside, crops.images[:, 0] > 0)
            none = crops.regions.sizes.size
            assert np.array_equal(crops.regions.positions < none, crops.inside)
            assert crops.regions.sizes.sum() == 3 * 48 * 48
            places |= {tuple(np.argwhere(inside)[0].tolist()) for inside in crops.inside}
    assert len(places) == 4  # of all quarter turns


def test_padding_has_no_part_in_a_step(domains: Domains, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels, features and softmax maps are of what is inside, whatever the segmenter says."""
    config, outputs = whole_sections(crop_px=96), weak_labels._WeakLabels._outputs

    def spoilt(ours: Any, crops: adversaries.Crops) -> adversaries.Outputs:
        fine, inside = outputs(ours, crops), torch.from_numpy(crops.inside)[:, None]
        return adversaries.Outputs(fine.logits + 5 * ~inside, fine.features + 5 * ~inside)

    plain = losses_of(adapted(config, domains)[1][0])
    monkeypatch.setattr(weak_labels._WeakLabels, "_outputs", spoilt)
    assert losses_of(adapted(config, domains)[1][0]) == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("whose", ["target", "both"])
def test_statistics_of_the_source_move_only_where_both_are_asked_for(
    domains: Domains, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    moved: list[bool] = []
    outputs = weak_labels._WeakLabels._outputs

    def noting(ours: Any, crops: adversaries.Crops) -> adversaries.Outputs:
        segmenter: UNet = ours._segmenter
        assert segmenter.training
        before = [buffer.clone() for buffer in segmenter.buffers() if buffer.ndim]
        result = outputs(ours, crops)
        after = [buffer for buffer in segmenter.buffers() if buffer.ndim]
        moved.append(not all(torch.equal(*each) for each in zip(before, after, strict=True)))
        return result

    monkeypatch.setattr(weak_labels._WeakLabels, "_outputs", noting)
    adapted(whole_sections(BATCH, norm_statistics=whose), domains)
    assert moved == [whose == "both", True]


def test_precision_changes_losses_by_little(domains: Domains) -> None:
    exact, rounded = (
        losses_of(adapted(whole_sections(precision=precision), domains)[1][0])
        for precision in ("float32", "bf16")
    )
    for name, value in exact.items():
        assert rounded[name] == pytest.approx(value, rel=0.05)
        assert rounded[name] != value


def test_labels_and_settings_decide_what_is_trained(tmp_path: Path) -> None:
    identities: list[str] = []

    def finished(_: object, identity: str) -> None:
        identities.append(identity)

    def trained(labels: Any, **weak: Any) -> UNet:
        domains = domains_of(tmp_path / str(len(identities)), labels)
        config = whole_sections(weak={**WITHOUT, **weak})
        run = Run(lambda _: None, finished=finished)
        return adapt_weak_labels(untrained(config), *domains, config, run)

    first = trained(LABELS)
    assert equal_weights(trained(LABELS), first)
    assert not equal_weights(trained(LABELS[::-1]), first)
    assert not equal_weights(trained(LABELS, smoothness=3.0), first)
    assert identities[0] == identities[1]
    assert len(set(identities)) == 3


def test_it_learns_the_labels_of_the_target(tmp_path: Path) -> None:
    """Those of untrained weights are wrong."""
    domains = domains_of(tmp_path, [((P, A), (P, P)), ((P, P), (P, A)), ((P, A), (P, A))])
    weak = {**WITHOUT, "weight_labels": 1.0, "smoothness": 4.0, "pool_px": 4}
    config = whole_sections(GROUP, weak, steps=100, learning_rate=2e-2)
    reports = adapted(config, domains)[1]
    assert reports[0].values["loss_labels"] > 0.5
    assert reports[-1].values["loss_labels"] < 0.05


# --- resume ---------------------------------------------------------------------------------------


def timeless(progress: Progress) -> Mapping[str, float]:
    return {name: value for name, value in progress.values.items() if name != "wait_share"}


def tensors(nested: Mapping[Any, Any], where: str = "") -> dict[str, Tensor]:
    """The tensors of nested mappings by their place."""
    found = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= tensors(value, f"{where}.{key}")
        elif isinstance(value, Tensor):
            found[f"{where}.{key}"] = value
    return found


def test_a_run_stopped_and_begun_again_ends_bit_for_bit_the_same(
    domains: Domains, tmp_path: Path
) -> None:
    weak = {"dropout": 0.3, "weight_class_alignment": 1.0, "weight_output_alignment": 1.0}
    config = whole_sections(BATCH, weak, steps=6, augmentation=AugmentationConfig())
    start, undisturbed = untrained(config), Checkpoints(tmp_path / "undisturbed", every_seconds=999)
    reports: list[Progress] = []
    expected = adapt_weak_labels(start, *domains, config, Run(reports.append, undisturbed))

    checkpoints = Checkpoints(tmp_path / "stopped", every_seconds=999)
    again: dict[int, Mapping[str, float]] = {}
    for stop_at in (2, 5, None):

        def report(progress: Progress, stop_at: int | None = stop_at) -> None:
            again[progress.step] = timeless(progress)
            if progress.step == stop_at:
                raise Stop

        torch.manual_seed(stop_at or 0)  # torch's own stream decides nothing
        run = Run(report, checkpoints)
        if stop_at is None:
            assert equal_weights(adapt_weak_labels(start, *domains, config, run), expected)
        else:
            with pytest.raises(Stop):
                adapt_weak_labels(start, *domains, config, run)
    assert again == {progress.step: timeless(progress) for progress in reports}
    one, other = (
        torch.load(tmp_path / name / "adapt-0.pt", weights_only=True)
        for name in ("undisturbed", "stopped")
    )
    assert one["modules"].keys() == {"segmenter", "class", "output"}
    for part, least in (("modules", 60), ("optimisers", 120)):
        mine, theirs = tensors(one[part]), tensors(other[part])
        assert mine.keys() == theirs.keys()
        assert len(mine) > least
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
