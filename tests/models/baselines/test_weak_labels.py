"""Paul et al.: regions, losses, discriminators, and what a step of all of them is made of.

In most steps crops are whole sections, unaugmented, without dropout, and a batch is the three of
them, so that a step can be computed by hand.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.adaptation import Learner, Pair, adapt_by, source_loss
from models.baselines import adversaries, weak_labels
from models.baselines.class_discriminators import ClassDiscriminators, OutputDiscriminator
from models.baselines.pooling import at_squares, pooled
from models.baselines.weak_labels import adapt_weak_labels
from models.config.augmentation import AugmentationConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain
from models.data.samples import SourceBatch, source_batch
from models.data.sampling import Sample, Sampler
from models.losses import smooth_maximum, weak_label_loss
from models.networks.unet import UNet
from models.segmentation import adamw, pixels_of_all
from models.training.identity import MethodFacts
from models.training.loop import Run, seeded_weights, update
from models.training.progress import Progress, Stop
from models.training.resume import Checkpoints
from tests.models.baselines.weak_label_steps import (
    LABELS,
    WITHOUT,
    Domains,
    adapted,
    domains_of,
    losses_of,
    spying,
    whole_sections,
)
from tests.models.domains import NEEDS_BF16, QUIET, A, P, U, equal_weights
from tests.models.training_steps import BATCH, GROUP, images, masks, tensors, timeless, untrained

pytestmark = pytest.mark.training


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


def learnt_by(config: StyleFilterConfig, domains: Domains, start: UNet, *, labels: bool) -> UNet:
    """In the common loop, without anything adversarial: CE(x_s, m_s), and perhaps BCE(x_t, l_t)."""
    stage, weak = config.adaptation, config.weak_labels
    Batch = tuple[SourceBatch, weak_labels.Part]

    segmenter = copy.deepcopy(start)
    ours = weak_labels.WeakLabels(segmenter, Pair(*domains), config)
    optimiser = adamw(segmenter, stage)

    def batch(x_s: Sequence[Sample], x_t: Sequence[Sample]) -> Batch:
        source = source_batch(domains[0], copy.deepcopy(x_s), stage)
        return source, ours.batch(x_s, x_t)[0]

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

    facts = MethodFacts(labels=False, settings={"method": "by hand"})
    learner = Learner(segmenter, facts, batch, step, {"segmenter": optimiser})
    return adapt_by(learner, Pair(*domains), config, QUIET)


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
    ours = weak_labels.WeakLabels(untrained(config), Pair(*domains), config)
    samplers = [
        Sampler(domain.training_sections(), 0, "adapt", purpose)
        for domain, purpose in zip(domains, ("source", "target"), strict=True)
    ]
    places = set()
    for step in range(1, 5):
        (part,) = ours.batch(*(sampler.batch(step, 3) for sampler in samplers))
        for crops in (part.source, part.target):
            assert np.array_equal(crops.inside, crops.images[:, 0] > 0)
            none = crops.regions.sizes.size
            assert np.array_equal(crops.regions.positions < none, crops.inside)
            assert crops.regions.sizes.sum() == 3 * 48 * 48
            places |= {tuple(np.argwhere(inside)[0].tolist()) for inside in crops.inside}
    assert len(places) == 4  # of all quarter turns


def test_padding_has_no_part_in_a_step(domains: Domains, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels, features and softmax maps are of what is inside, whatever the segmenter says."""
    config, outputs = whole_sections(crop_px=96), weak_labels.WeakLabels.outputs

    def spoilt(ours: Any, crops: adversaries.Crops) -> adversaries.Outputs:
        fine, inside = outputs(ours, crops), torch.from_numpy(crops.inside)[:, None]
        return adversaries.Outputs(fine.logits + 5 * ~inside, fine.features + 5 * ~inside)

    plain = losses_of(adapted(config, domains)[1][0])
    monkeypatch.setattr(weak_labels.WeakLabels, "outputs", spoilt)
    assert losses_of(adapted(config, domains)[1][0]) == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("whose", ["target", "both"])
def test_statistics_of_the_source_move_only_where_both_are_asked_for(
    domains: Domains, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    moved: list[bool] = []
    outputs = weak_labels.WeakLabels.outputs

    def noting(ours: Any, crops: adversaries.Crops) -> adversaries.Outputs:
        segmenter: UNet = ours.segmenter
        assert segmenter.training
        before = [buffer.clone() for buffer in segmenter.buffers() if buffer.ndim]
        result = outputs(ours, crops)
        after = [buffer for buffer in segmenter.buffers() if buffer.ndim]
        moved.append(not all(torch.equal(*each) for each in zip(before, after, strict=True)))
        return result

    monkeypatch.setattr(weak_labels.WeakLabels, "outputs", noting)
    adapted(whole_sections(BATCH, norm_statistics=whose), domains)
    assert moved == [whose == "both", True]


@NEEDS_BF16
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
