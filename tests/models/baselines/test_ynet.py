"""Y-Net: the decoder without skips, its loss, and what a step of both decoders is made of.

Most crops are whole sections, unaugmented, and a batch is the three of them, so that a step can be
computed by hand.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.adaptation import Learner, Pair, adapt_by, source_loss
from models.baselines import ynet
from models.baselines.reconstruction import ReconstructionDecoder
from models.baselines.ynet import adapt_ynet
from models.config.augmentation import AugmentationConfig
from models.config.baselines import YNetConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain, Tile
from models.data.samples import SourceBatch, source_batch
from models.data.sampling import Sample, Sampler
from models.data.stylised import StylisedDomain
from models.losses import reconstruction_error
from models.networks.statistics import norms
from models.networks.unet import UNet
from models.segmentation import adamw, pixels_of_all
from models.training.identity import MethodFacts
from models.training.loop import Run, seeded_weights, update
from models.training.progress import Progress, Stop
from models.training.resume import Checkpoints
from tests.models.domains import NEEDS_BF16, QUIET, equal_weights, squares, write_domain
from tests.models.stage_process import inverted, pair, tiny
from tests.models.training_steps import (
    BATCH,
    GROUP,
    STILL,
    error_loop,
    images,
    masks,
    tensors,
    timeless,
    untrained,
)

pytestmark = pytest.mark.training

SOURCE, TARGET = "loss_reconstruction_source", "loss_reconstruction_target"
Domains = tuple[Domain, StylisedDomain]


def whole_sections(
    segmenter: Mapping[str, str] = GROUP,
    weight: float = 1.0,
    reconstruct: str = "both",
    **changes: Any,
) -> StyleFilterConfig:
    stage = {"crop_px": 48, "batch_size": 3, "augmentation": STILL, "select_on": "last"}
    config = tiny({**stage, "steps": 1, **changes}, segmenter)
    ours = YNetConfig(weight_reconstruction=weight, reconstruct=reconstruct)
    return config.model_copy(update={"ynet": ours})


def decoder(config: StyleFilterConfig) -> ReconstructionDecoder:
    """As it is before the first step."""
    with seeded_weights(config.seed):
        return ReconstructionDecoder(config.segmenter)


@pytest.fixture
def domains(tmp_path: Path) -> Domains:
    source, target = pair(tmp_path)
    return source, inverted(target, tmp_path)


def adapted(
    config: StyleFilterConfig, domains: Domains, start: UNet | None = None
) -> tuple[UNet, list[Progress]]:
    reports: list[Progress] = []
    segmenter = adapt_ynet(start or untrained(config), *domains, config, Run(reports.append))
    return segmenter, reports


@dataclass
class Step:
    """What the updates of a run were given, and left."""

    gradients: list[list[Tensor]] = field(default_factory=list)
    errors: list[tuple[Tensor, ...]] = field(default_factory=list)
    """Of each call: reconstructed, images, inside."""


@contextmanager
def spying() -> Iterator[Step]:
    step, original = Step(), ynet.update

    def updating(losses: Any, optimiser: torch.optim.Optimizer) -> list[float]:
        values = original(losses, optimiser)
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        step.gradients.append(
            [torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in weights]
        )
        return values

    def error(*arguments: Tensor) -> Tensor:
        step.errors.append(tuple(argument.detach().clone() for argument in arguments[:3]))
        return reconstruction_error(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ynet, "update", updating)
        patch.setattr(ynet, "reconstruction_error", error)
        yield step


def by_hand(
    config: StyleFilterConfig, domains: Domains
) -> tuple[dict[str, float], list[Tensor], UNet]:
    """Losses and gradients of the first step, in plain torch, and the network they are of."""
    segmenter, reconstruct = untrained(config), decoder(config)
    x_s, x_t = images(domains[0]), images(domains[1])

    def error(x: Tensor) -> Tensor:
        image = reconstruct(segmenter.encode(x * 2 - 1)[-1], 48, 48)
        return F.mse_loss(image, x)

    losses = {"loss_source": F.cross_entropy(segmenter(x_s * 2 - 1), masks(domains[0]))}
    if config.ynet.reconstruct == "both":
        losses[SOURCE] = error(x_s)
    losses[TARGET] = error(x_t)
    weight = config.ynet.weight_reconstruction
    total = sum(loss * (1 if name == "loss_source" else weight) for name, loss in losses.items())
    weights = [*segmenter.parameters(), *reconstruct.parameters()]
    gradients = torch.autograd.grad(total, weights)
    return {name: loss.item() for name, loss in losses.items()}, list(gradients), segmenter


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("reconstruct", ["both", "target"])
def test_a_step_is_the_sum_of_its_terms(
    domains: Domains, reconstruct: str, accumulate: int
) -> None:
    config = whole_sections(weight=0.7, reconstruct=reconstruct, accumulate=accumulate)
    with spying() as step:
        reports = adapted(config, domains)[1]
    losses, gradients, _ = by_hand(config, domains)
    values = {name: value for name, value in reports[0].values.items() if "loss" in name}
    assert values == pytest.approx(losses, rel=1e-5)
    assert len(step.gradients[0]) == len(gradients)
    for actual, expected in zip(step.gradients[0], gradients, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-6)


def test_the_reconstruction_teaches_the_encoder_and_never_the_segmenters_decoder(
    domains: Domains,
) -> None:
    """The gradients of two weights differ by R's, which tells Y-Net from more source training."""
    by_weight = {}
    for weight in (0.0, 1.0):
        with spying() as step:
            adapted(whole_sections(weight=weight), domains)
        by_weight[weight] = step.gradients[0]
    names = [name for name, _ in untrained(whole_sections()).named_parameters()]
    differing = {
        name.split(".")[0]: float((with_r - without).abs().max())
        for name, with_r, without in zip(names, by_weight[1.0], by_weight[0.0], strict=False)
    }
    assert set(differing) == {"stem", "downs", "ups", "head"}
    assert min(differing["stem"], differing["downs"]) > 1e-4
    assert differing["ups"] == differing["head"] == 0


def test_nothing_of_the_image_passes_by_the_bottleneck(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other skips, the same code: the same reconstruction, and another segmentation."""
    before = adapted(whole_sections(), domains)[1][0].values
    encode = UNet.encode

    def other_skips(segmenter: UNet, x: Tensor) -> list[Tensor]:
        *skips, code = encode(segmenter, x)
        return [*(skip.flip(-1) for skip in skips), code]

    monkeypatch.setattr(UNet, "encode", other_skips)
    after = adapted(whole_sections(), domains)[1][0].values
    assert (after[SOURCE], after[TARGET]) == (before[SOURCE], before[TARGET])
    assert abs(after["loss_source"] - before["loss_source"]) > 1e-4


def test_the_terms_are_weighted(domains: Domains) -> None:
    start = untrained(whole_sections())
    results = [
        adapted(whole_sections(weight=weight, reconstruct=reconstruct), domains, start)[0]
        for weight, reconstruct in ((0.0, "both"), (0.0, "target"), (1.0, "both"), (1.0, "target"))
    ]
    equal = [[equal_weights(one, other) for other in results] for one in results]
    assert equal[0] == [True, True, False, False]
    assert equal[2] == [False, False, True, False]


def continued(
    config: StyleFilterConfig, source: Domain, target: StylisedDomain, start: UNet
) -> UNet:
    """More of the supervised training on the source, in the common loop."""
    stage, segmenter = config.adaptation, copy.deepcopy(start)
    optimiser = adamw(segmenter, stage)

    def batch(x_s: Sequence[Sample], _: object) -> SourceBatch:
        return source_batch(source, x_s, stage)

    def step(batch: SourceBatch) -> Mapping[str, float]:
        segmenter.train()
        known = pixels_of_all(batch.masks != IGNORE, torch.device("cpu"))
        loss = source_loss(segmenter, batch, stage, known)
        return {"loss": sum(update([loss], optimiser))}

    facts = MethodFacts(labels=False, settings={"method": "continued"})
    learner = Learner(segmenter, facts, batch, step, {"segmenter": optimiser})
    return adapt_by(learner, Pair(source, target), config, QUIET)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_without_weight_it_is_more_training_on_the_source_bit_for_bit(
    domains: Domains, norm: str
) -> None:
    augmented = AugmentationConfig()
    changes = {"steps": 5, "augmentation": augmented, "crop_px": 32, "batch_size": 2}
    config = whole_sections({"norm": norm}, weight=0.0, **changes)
    start = untrained(config)
    plain = continued(config, *domains, start)
    assert equal_weights(adapted(config, domains, start)[0], plain)
    weighted = whole_sections({"norm": norm}, weight=1.0, **changes)
    assert not equal_weights(adapted(weighted, domains, start)[0], plain)
    assert not equal_weights(start, plain)


@NEEDS_BF16
def test_precision_is_that_of_both_decoders(domains: Domains) -> None:
    reports = {}
    for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        with spying() as step:
            reports[precision] = adapted(whole_sections(precision=precision), domains)[1][0].values
        assert {reconstructed.dtype for reconstructed, _, _ in step.errors} == {dtype}
    for name in ("loss_source", SOURCE, TARGET):
        assert reports["bf16"][name] == pytest.approx(reports["float32"][name], rel=0.05)
        assert reports["bf16"][name] != reports["float32"][name]


@pytest.mark.parametrize("view", ["stylised", "raw", "both"])
def test_it_sees_the_target_as_given_whatever_the_students_view(
    domains: Domains, view: str
) -> None:
    with spying() as step:
        adapted(whole_sections(student_view=view), domains)
    sampler = Sampler(domains[1].training_sections(), 0, "adapt", "target")
    order = [sample.section.index for sample in sampler.batch(1, 3)]
    assert torch.equal(step.errors[1][1], images(domains[1])[order])
    assert not torch.equal(step.errors[1][1], images(domains[1].raw)[order])


def test_what_is_reconstructed_is_the_noisy_input(domains: Domains) -> None:
    seen: list[Tensor] = []

    def note(network: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if isinstance(network, nn.Conv2d) and network.in_channels == 1 and network.training:
            seen.append(arguments[0].clone())

    noisy = AugmentationConfig(noise_sigma=0.2)
    handle = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        with spying() as step:
            adapted(whole_sections(augmentation=noisy), domains)
    finally:
        handle.remove()
    assert len(step.errors) == 2
    for x, (_, wanted, _) in zip(seen, step.errors, strict=False):
        torch.testing.assert_close(x, wanted * 2 - 1)
    assert (step.errors[0][1] - images(domains[0])).abs().max() > 0.3


def padded_domains(folder: Path) -> Domains:
    """Sections of 40 x 56, of which the left quarter of the source's is unlabelled."""
    tall = [tuple(each[:40] for each in squares(56, seed)) for seed in range(3)]
    sections = [image for image, _ in tall]
    known = [mask.copy() for _, mask in tall]
    for mask in known:
        mask[:, :14] = IGNORE
    source = write_domain(folder / "source.zarr", sections, known, ["train"] * 3)
    target = write_domain(folder / "target.zarr", sections, known, ["train"] * 3)
    return source, inverted(target, folder)


def test_padding_is_excluded_and_unlabelled_pixels_are_not(tmp_path: Path) -> None:
    """No image is black anywhere, so the crops show where their padding is."""
    turned = AugmentationConfig(brightness=0, contrast=0, noise_sigma=0)
    config = whole_sections(crop_px=64, augmentation=turned, steps=4)
    with spying() as step:
        reports = adapted(config, padded_domains(tmp_path))[1]
    places = set()
    for _, wanted, inside in step.errors:
        assert torch.equal(inside, wanted[:, 0] > 0)
        assert inside.sum(dim=(1, 2)).tolist() == [40 * 56] * 3
        places |= {tuple(image.nonzero()[0].tolist()) for image in inside}
    assert len(places) == 4  # of all quarter turns
    for number, report in enumerate(reports):
        for name, error in zip((SOURCE, TARGET), step.errors[2 * number :], strict=False):
            assert report.values[name] == pytest.approx(error_loop(*error), rel=1e-5)


def test_labels_of_the_target_decide_nothing(domains: Domains) -> None:
    source, target = domains
    identities: list[str] = []

    def adapted_with(labels: Sequence[int], **ynet: Any) -> UNet:
        tiles = [Tile(index, 0, 0, 24, 48, tuple(labels)) for index in range(3)]
        labelled = Domain(target.raw.store, target.raw.info, target.raw.sections, tiles)
        stylised = inverted(labelled, target.raw.store.parent)

        def finished(_: object, identity: str) -> None:
            identities.append(identity)

        config = whole_sections(**ynet)
        run = Run(lambda _: None, finished=finished)
        return adapt_ynet(untrained(config), source, stylised, config, run)

    first, second = adapted_with((1, 0)), adapted_with((0, 1))
    assert equal_weights(first, second)
    # Neither do settings of methods with pseudo-labels, so nothing is trained again for them.
    assert equal_weights(first, adapted_with((1, 0), pseudo_labeler="frozen", label_filter=False))
    assert identities.pop() == identities[0]
    adapted_with((1, 0), weight=0.5)
    adapted_with((1, 0), reconstruct="target")
    assert identities[0] == identities[1]
    assert len(set(identities)) == 3


def test_what_is_returned_is_a_plain_segmenter_and_the_start_is_left_alone(
    domains: Domains,
) -> None:
    config = whole_sections(BATCH)
    start = untrained(config)
    before = copy.deepcopy(start)
    segmenter = adapted(config, domains, start)[0]
    assert type(segmenter) is UNet
    assert not segmenter.training
    assert segmenter.state_dict().keys() == start.state_dict().keys()
    assert equal_weights(start, before)
    assert not equal_weights(segmenter, before)


def statistics(segmenter: UNet) -> list[Tensor]:
    return [value for norm in norms(segmenter) for value in (norm.running_mean, norm.running_var)]


def of_batch(segmenter: UNet, batch: Tensor) -> list[Tensor]:
    """The statistics of one batch in every layer."""
    network = copy.deepcopy(segmenter).train()
    for norm in norms(network):
        norm.momentum = 1.0
    with torch.no_grad():
        network(batch * 2 - 1)
    return statistics(network)


def test_stored_statistics_are_those_of_the_target_as_given(domains: Domains) -> None:
    segmenter = adapted(whole_sections(BATCH, steps=3), domains)[0]
    given, raw = (of_batch(segmenter, images(d)) for d in (domains[1], domains[1].raw))
    for stored, target in zip(statistics(segmenter), given, strict=True):
        torch.testing.assert_close(stored, target, rtol=1e-4, atol=1e-5)
    pairs = zip(statistics(segmenter), raw, strict=True)
    assert any(bool(((stored - other).abs() > 1e-2).any()) for stored, other in pairs)


def test_source_passes_leave_the_targets_statistics(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What previews between two estimates are made with; the target does not reach the decoder."""
    monkeypatch.setattr("models.adaptation.estimate_statistics", lambda *_: None)
    config = whole_sections(BATCH, learning_rate=1e-12)
    start = untrained(config)
    segmenter = adapted(config, domains, start)[0]
    target, encoder = of_batch(start, images(domains[1])), 2 * len(norms(start.stem) * 3)
    layers = zip(statistics(segmenter), statistics(start), target, strict=True)
    for number, (stored, first, of_target) in enumerate(layers):
        moved = 0.9 * first + 0.1 * of_target
        torch.testing.assert_close(stored, moved if number < encoder else first)


def test_statistics_of_both_are_a_running_mean_in_all_layers(domains: Domains) -> None:
    """At a learning rate that leaves the weights as they are between the passes."""
    config = whole_sections(BATCH, norm_statistics="both", learning_rate=1e-12)
    start = untrained(config)
    segmenter = adapted(config, domains, start)[0]
    source, target = (of_batch(start, images(domain)) for domain in domains)
    layers = zip(statistics(segmenter), statistics(start), source, target, strict=True)
    for stored, first, of_source, of_target in layers:
        expected = 0.9 * (0.9 * first + 0.1 * of_source) + 0.1 * of_target
        torch.testing.assert_close(stored, expected, rtol=1e-4, atol=1e-6)


def test_a_run_stopped_and_begun_again_ends_bit_for_bit_the_same(
    domains: Domains, tmp_path: Path
) -> None:
    config = whole_sections(BATCH, steps=6, augmentation=AugmentationConfig(), crop_px=32)
    start, undisturbed = untrained(config), Checkpoints(tmp_path / "undisturbed", every_seconds=999)
    reports: list[Progress] = []
    expected = adapt_ynet(start, *domains, config, Run(reports.append, undisturbed))

    checkpoints = Checkpoints(tmp_path / "stopped", every_seconds=999)
    again: dict[int, Mapping[str, float]] = {}
    for stop_at in (2, 5, None):

        def report(progress: Progress, stop_at: int | None = stop_at) -> None:
            again[progress.step] = timeless(progress)
            if progress.step == stop_at:
                raise Stop

        run = Run(report, checkpoints)
        if stop_at is None:
            assert equal_weights(adapt_ynet(start, *domains, config, run), expected)
        else:
            with pytest.raises(Stop):
                adapt_ynet(start, *domains, config, run)
    assert again == {progress.step: timeless(progress) for progress in reports}
    states = [torch.load(folder / "adapt-0.pt", weights_only=True) for folder in folders(tmp_path)]
    for part, least in (("modules", 40), ("optimisers", 100)):
        one, other = (tensors(state[part]) for state in states)
        assert one.keys() == other.keys()
        assert len(one) > least
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert {"segmenter", "reconstruction"} == states[0]["modules"].keys()


def folders(folder: Path) -> list[Path]:
    return [folder / "undisturbed", folder / "stopped"]
