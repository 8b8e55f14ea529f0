"""The options of adaptation, each with all its values: what a step is made of, and what is kept.

Crops are whole sections, unaugmented, and a batch is the three of them, so that every step can be
computed by hand.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models import pseudo_labels
from models.config.augmentation import AugmentationConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain, Tile
from models.data.labels import ABSENT, PRESENT, UNKNOWN
from models.data.sampling import Sampler
from models.data.stylised import StylisedDomain
from models.networks.statistics import norms
from models.networks.unet import UNet
from models.pseudo_labels import adapt_segmenter
from models.segmentation import supervised_loss
from models.training.loop import Run, seeded_weights
from models.training.progress import Progress
from tests.models.domains import equal_weights, squares, write_domain
from tests.models.stage_process import inverted, pair, tiny

pytestmark = pytest.mark.training

STILL = AugmentationConfig(rotate=False, brightness=0, contrast=0, noise_sigma=0)
GROUP, BATCH = {"norm": "group"}, {"norm": "batch"}

Pair = tuple[Domain, StylisedDomain]


def whole_sections(segmenter: Mapping[str, str] = GROUP, **changes: Any) -> StyleFilterConfig:
    stage = {"crop_px": 48, "batch_size": 3, "augmentation": STILL, "learning_rate": 1e-2}
    return tiny({**stage, "steps": 1, **changes}, segmenter)


def untrained(config: StyleFilterConfig, num_classes: int = 2) -> UNet:
    with seeded_weights(1):
        return UNet(num_classes, config.segmenter)


def undecided(config: StyleFilterConfig, domain: Domain) -> UNet:
    """An untrained segmenter that gives half of the pixels to each class."""
    segmenter = untrained(config)
    with torch.no_grad():
        logits = segmenter(training_images(domain))
        segmenter.head.bias[1] -= (logits[:, 1] - logits[:, 0]).median()
    return segmenter


@pytest.fixture
def domains(tmp_path: Path) -> Pair:
    source, target = pair(tmp_path)
    return source, inverted(target, tmp_path)


@dataclass
class Spy:
    """What the adaptation's target loss was given: labels of each step and view."""

    labels: list[Tensor] = field(default_factory=list)
    reports: list[Progress] = field(default_factory=list)


@contextmanager
def spying() -> Iterator[Spy]:
    spy, original = Spy(), pseudo_labels.cross_entropy

    def loss(logits: Tensor, labels: Tensor, num_known: Tensor) -> Tensor:
        spy.labels.append(labels)
        return original(logits, labels, num_known)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pseudo_labels, "cross_entropy", loss)
        yield spy


def adapted(
    config: StyleFilterConfig, domains: Pair, start: UNet | None = None
) -> tuple[UNet, Spy]:
    """Adapt, with everything of interest noted."""
    with spying() as spy:
        segmenter = adapt_segmenter(
            start or untrained(config), *domains, config, Run(spy.reports.append)
        )
    return segmenter, spy


def training_images(domain: Domain) -> Tensor:
    """All training sections as one batch of inputs."""
    images = np.stack([domain.image(section) for section in domain.split("train")])
    return torch.from_numpy(images * 2 - 1)[:, None]


def batch_of(values: Tensor, target: Domain, step: int = 1) -> Tensor:
    """Values of the training sections, (3, ...), in the order of a step's batch."""
    sampler = Sampler(target.training_sections(), 0, "adapt", "target")
    return values[[sample.section.index for sample in sampler.batch(step, 3)]]


def hand_labels(segmenter: UNet, target: Domain) -> Tensor:
    with torch.no_grad():
        return segmenter.eval()(training_images(target)).argmax(dim=1)


# --- student_view ---------------------------------------------------------------------------------


def test_the_student_sees_the_view_asked_for(domains: Pair) -> None:
    target = domains[1]
    start = undecided(whole_sections(), target)
    labels, losses = hand_labels(start, target), {}
    for view in ("stylised", "raw", "both"):
        config = whole_sections(student_view=view, label_filter=False)
        spy = adapted(config, domains, start)[1]
        assert len(spy.labels) == (2 if view == "both" else 1)
        assert all(torch.equal(seen, batch_of(labels, target)) for seen in spy.labels)
        losses[view] = spy.reports[0].values["loss_target"]
    for view, domain in (("stylised", target), ("raw", target.raw)):
        with torch.no_grad():
            logits = start(training_images(domain))
        expected = F.cross_entropy(logits, labels).item()
        assert losses[view] == pytest.approx(expected, rel=1e-5)
    assert abs(losses["stylised"] - losses["raw"]) > 1e-3
    assert losses["both"] == pytest.approx((losses["stylised"] + losses["raw"]) / 2, rel=1e-5)


# --- pseudo_labeler -------------------------------------------------------------------------------


def mixture(old: UNet, new: UNet, share: float) -> UNet:
    mixed, weights = copy.deepcopy(old), new.state_dict()
    state = {n: share * w + (1 - share) * weights[n] for n, w in old.state_dict().items()}
    mixed.load_state_dict(state)
    return mixed


def test_the_pseudo_labeler_asked_for_labels_the_second_step(domains: Pair) -> None:
    target, kept = domains[1], {"label_filter": False, "select_on": "last"}
    start = undecided(whole_sections(), target)
    # The first step is the same for all: they start from one network.
    first = adapted(whole_sections(**kept), domains, start)[0]
    by = {"current": first, "frozen": start, "ema": mixture(start, first, 0.7)}
    expected = {name: hand_labels(network, target) for name, network in by.items()}
    for name in by:
        config = whole_sections(steps=2, pseudo_labeler=name, ema_decay=0.7, **kept)
        second = adapted(config, domains, start)[1].labels[1]
        wrong = {
            other: int((second != batch_of(labels, target, 2)).sum())
            for other, labels in expected.items()
        }
        assert wrong.pop(name) <= 2  # a mixture rounds otherwise, which may turn a tie
        assert min(wrong.values()) > 50


def test_weights_that_do_not_change_label_with_their_stored_statistics(domains: Pair) -> None:
    target, still = domains[1], whole_sections(BATCH, label_filter=False, select_on="last")
    start = undecided(still, target).train()
    start(torch.rand(3, 1, 48, 48) * 2 - 1)  # stored statistics of something else
    by_stored = hand_labels(start, target)
    images = batch_of(training_images(target), target)
    with torch.no_grad():
        by_own = copy.deepcopy(start).train()(images).argmax(dim=1)
    expected = {"frozen": batch_of(by_stored, target), "current": by_own}
    assert int((expected["frozen"] != by_own).sum()) > 50
    for name, labels in expected.items():
        config = whole_sections(BATCH, label_filter=False, select_on="last", pseudo_labeler=name)
        assert torch.equal(adapted(config, domains, start)[1].labels[0], labels)


def test_an_average_that_forgets_at_once_is_the_current_network(domains: Pair) -> None:
    config = {"steps": 4, "select_on": "last", "label_filter": False}
    start = undecided(whole_sections(), domains[1])
    current = adapted(whole_sections(**config), domains, start)[0]
    for decay, same in ((0.0, True), (0.9, False)):
        average = whole_sections(pseudo_labeler="ema", ema_decay=decay, **config)
        assert equal_weights(adapted(average, domains, start)[0], current) == same


# --- select_on ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("select_on", "step"), [("target_val", 2), ("source_val", 1), ("last", 3)])
def test_the_weights_are_chosen_by_what_was_asked_for(
    domains: Pair, monkeypatch: pytest.MonkeyPatch, select_on: str, step: int
) -> None:
    def after(steps: int, by: str) -> UNet:
        scores = {True: iter([0.1, 0.9, 0.2]), False: iter([0.8, 0.3, 0.1])}

        def validate(_: UNet, domain: Domain, __: object) -> Mapping[str, float]:
            return {"dice/mean": next(scores[isinstance(domain, StylisedDomain)])}

        monkeypatch.setattr("models.adaptation.validate", validate)
        config = whole_sections(BATCH, steps=steps, validate_every_steps=1, select_on=by)
        segmenter, spy = adapted(config, domains)
        best = spy.reports[-1].best
        assert best is not None
        values = spy.reports[(steps if by == "last" else step) - 1].values
        scores = {name: value for name, value in values.items() if "dice/" in name}
        assert best == {**scores, "selected_step": steps if by == "last" else step}
        return segmenter

    chosen = after(3, select_on)
    others = {steps: equal_weights(chosen, after(steps, "last")) for steps in (1, 2, 3)}
    assert others == {steps: steps == step for steps in (1, 2, 3)}


# --- start_eligible -------------------------------------------------------------------------------


@pytest.mark.parametrize("eligible", [True, False])
def test_the_weights_adaptation_starts_from_may_be_kept(
    domains: Pair, monkeypatch: pytest.MonkeyPatch, *, eligible: bool
) -> None:
    scores = iter([0.9, 0.9, 0.5, 0.5] if eligible else [0.5, 0.5])
    monkeypatch.setattr("models.adaptation.validate", lambda *_: {"dice/mean": next(scores)})
    start = untrained(whole_sections(BATCH))
    segmenter, spy = adapted(whole_sections(BATCH, start_eligible=eligible), domains, start)
    assert equal_weights(segmenter, start) == eligible
    assert [report.step for report in spy.reports] == ([0, 1] if eligible else [1])
    assert spy.reports[-1].best is not None
    assert spy.reports[-1].best["selected_step"] == (0 if eligible else 1)


# --- epoch_by -------------------------------------------------------------------------------------


class Told(Exception):
    """Ends a run once its length is known."""


def length(config: StyleFilterConfig, source: Domain, target: StylisedDomain) -> int:
    told: list[int] = []

    def tell(progress: Progress) -> None:
        told.append(progress.total)
        raise Told

    with pytest.raises(Told):
        adapt_segmenter(untrained(config), source, target, config, Run(tell))
    return told[0]


def test_an_epoch_passes_over_the_domain_asked_for(tmp_path: Path) -> None:
    domains = {}
    for number in (2, 5):
        images, masks = zip(*(squares(48, seed) for seed in range(number)), strict=True)
        store = tmp_path / f"{number}.zarr"
        domains[number] = write_domain(store, images, masks, ["train"] * number)
    stylised = {
        number: inverted(domain, tmp_path / f"stylised-{number}")
        for number, domain in domains.items()
    }

    def lengths(source: int, target: int) -> Mapping[str, int]:
        return {
            by: length(
                whole_sections(steps=None, epochs=3, batch_size=2, epoch_by=by),
                domains[source],
                stylised[target],
            )
            for by in ("source", "target", "max")
        }

    # Five sections in batches of two are three steps, two sections one.
    assert lengths(2, 5) == {"source": 3, "target": 9, "max": 9}
    assert lengths(5, 2) == {"source": 9, "target": 3, "max": 9}


# --- label_filter and image-level labels ----------------------------------------------------------

CLASSES = ("background", "square", "missing")
"""No source section has a pixel of the last."""

U, A, P = UNKNOWN, ABSENT, PRESENT
ALLOWED: Mapping[tuple[int, ...], tuple[int, ...]] = {
    (U, U, U): (0, 1, 2),
    (P, P, P): (0, 1, 2),
    (A, A, A): (),
    (P, A, A): (0,),
    (A, U, A): (1,),
    (A, P, P): (1, 2),
    (U, U, A): (0, 1),  # the class that the source lacks, absent here too
    (A, A, P): (2,),  # ... present here
}
"""Image-level labels, and what they leave of the classes."""


def labelled(tmp_path: Path) -> Pair:
    """Three sections, each with a stripe of 6 pixels for all kinds of labels."""
    tiles = [
        Tile(section, 0, 6 * stripe, 48, 6, labels)
        for section in range(3)
        for stripe, labels in enumerate(ALLOWED)
    ]
    images, masks = zip(*(squares(48, seed) for seed in range(3)), strict=True)
    facts: dict[str, Any] = {"splits": ["train"] * 3, "class_names": CLASSES}
    source = write_domain(tmp_path / "source.zarr", images, masks, **facts)
    target = write_domain(tmp_path / "target.zarr", images, masks, tiles=tiles, **facts)
    return source, inverted(target, tmp_path)


def hand_filtered(logits: NDArray[np.float32], *, label_filter: bool) -> NDArray[np.int64]:
    """Eq. 3, or Eq. 2, pixel by pixel."""
    images, _, height, width = logits.shape
    labels, stripes = np.empty((images, height, width), np.int64), list(ALLOWED.values())
    for image, y, x in np.ndindex(labels.shape):
        allowed = stripes[x // 6] if label_filter else (0, 1, 2)
        scores = [logits[image, c, y, x] for c in allowed]
        labels[image, y, x] = allowed[int(np.argmax(scores))] if allowed else IGNORE
    return labels


@pytest.mark.parametrize("label_filter", [True, False])
@pytest.mark.parametrize("favourite", range(3))
def test_image_level_labels_filter_every_pixel(
    tmp_path: Path, label_filter: bool, favourite: int
) -> None:
    """``favourite`` is the class that wins wherever it may."""
    domains, config = labelled(tmp_path), whole_sections(label_filter=label_filter)
    start = untrained(config, len(CLASSES))
    with torch.no_grad():
        start.head.bias[favourite] += 100
        logits = start.eval()(training_images(domains[1])).numpy()
    expected = torch.from_numpy(hand_filtered(logits, label_filter=label_filter))
    stripes = sum(favourite in allowed for allowed in ALLOWED.values()) if label_filter else 8
    assert (expected == favourite).sum() == stripes * 6 * 48 * 3
    segmenter, spy = adapted(config, domains, start)
    assert torch.equal(spy.labels[0], batch_of(expected, domains[1]))
    assert all(bool(value.isfinite().all()) for value in segmenter.state_dict().values())


# --- norm_statistics ------------------------------------------------------------------------------


def statistics(segmenter: UNet) -> list[Tensor]:
    return [value for norm in norms(segmenter) for value in (norm.running_mean, norm.running_var)]


def of_batch(segmenter: UNet, batch: Tensor) -> list[Tensor]:
    """The statistics of one batch in every layer."""
    network = copy.deepcopy(segmenter).train()
    for norm in norms(network):
        norm.momentum = 1.0
    with torch.no_grad():
        network(batch)
    return statistics(network)


@pytest.mark.parametrize("probability", [0, 1])
def test_stored_statistics_are_those_of_the_stylised_target(
    domains: Pair, probability: float
) -> None:
    strong = STILL.changed({"strong": {"probability": probability}})  # trains, but is no statistic
    config = whole_sections(BATCH, steps=3, augmentation=strong)
    segmenter = adapted(config, domains)[0]
    of_target = of_batch(segmenter, training_images(domains[1]))
    of_source = of_batch(segmenter, training_images(domains[0]))
    assert len(statistics(segmenter)) == 20
    for stored, target in zip(statistics(segmenter), of_target, strict=True):
        torch.testing.assert_close(stored, target, rtol=1e-4, atol=1e-5)
    assert any(
        bool(((stored - source).abs() > 1e-2).any())
        for stored, source in zip(statistics(segmenter), of_source, strict=True)
    )


@pytest.mark.parametrize("whose", ["target", "both"])
def test_pseudo_labels_are_made_with_the_batchs_or_the_stored_statistics(
    domains: Pair, whose: str
) -> None:
    config = whole_sections(BATCH, norm_statistics=whose, label_filter=False)
    start, target = undecided(config, domains[1]), domains[1]
    by_stored = hand_labels(start, target)
    with torch.no_grad():
        by_batch = copy.deepcopy(start).train()(training_images(target)).argmax(dim=1)
    seen = adapted(config, domains, start)[1].labels[0]
    expected, other = (by_batch, by_stored) if whose == "target" else (by_stored, by_batch)
    assert int((seen != batch_of(expected, target)).sum()) <= 2
    assert int((seen != batch_of(other, target)).sum()) > 50


@pytest.mark.parametrize("whose", ["target", "both"])
def test_source_passes_move_stored_statistics_only_where_both_are_asked_for(
    domains: Pair, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    moved: list[bool] = []

    def spy(segmenter: UNet, *rest: Any) -> Tensor:
        before = [value.clone() for value in statistics(segmenter)]
        loss = supervised_loss(segmenter, *rest)
        assert segmenter.training
        pairs = zip(before, statistics(segmenter), strict=True)
        moved.append(not all(torch.equal(a, b) for a, b in pairs))
        return loss

    monkeypatch.setattr("models.adaptation.supervised_loss", spy)
    adapted(whole_sections(BATCH, steps=2, norm_statistics=whose), domains)
    assert moved == [whose == "both"] * 2


def test_statistics_of_both_are_a_running_mean(domains: Pair) -> None:
    """Of the first layer, whose input no update of the step has changed yet."""
    config = whole_sections(BATCH, norm_statistics="both")
    start = untrained(config)
    segmenter = adapted(config, domains, start)[0]
    mean, _ = statistics(segmenter)[:2]
    of_source, of_target = (of_batch(start, training_images(d))[0] for d in domains)
    torch.testing.assert_close(mean, 0.9 * 0.1 * of_source + 0.1 * of_target, rtol=1e-4, atol=1e-6)
