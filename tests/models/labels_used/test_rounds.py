"""Rounds: what a step is made of, when labels are made anew, and what the result is."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.baselines.regions import tiles_of
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain, Point
from models.data.samples import Crop
from models.data.sampling import Sampler
from models.data.stylised import StylisedDomain
from models.data.tiles import relabelled
from models.labels_used.area import class_bias, fold, predicted_in_tiles, prior_by_labels
from models.labels_used.presence import TilePixels, presence_loss
from models.labels_used.rounds import adapt_in_rounds
from models.labels_used.section_labels import SectionLabels
from models.labels_used.training_labels import TrainingLabels
from models.networks.statistics import estimate_statistics, norms
from models.networks.unet import UNet
from models.training.loop import Run
from models.training.progress import Progress
from tests.models.baselines.weak_label_steps import Domains, domains_of
from tests.models.domains import A, P, U, equal_weights
from tests.models.stage_process import inverted, tiny
from tests.models.training_steps import BATCH, GROUP, STILL, images, masks, untrained

pytestmark = pytest.mark.training

NO_PRIOR = np.full(2, np.nan)


@pytest.fixture
def domains(tmp_path: Path) -> Domains:
    return domains_of(tmp_path)


def whole_sections(
    segmenter: Any = GROUP, rounds: dict[str, Any] | None = None, **changes: Any
) -> StyleFilterConfig:
    """Crops are whole sections, unaugmented, and a batch is the three of them."""
    stage = {"crop_px": 48, "batch_size": 3, "augmentation": STILL, "select_on": "last"}
    config = tiny({**stage, "steps": 1, "learning_rate": 1e-2, **changes}, segmenter)
    plain = {"presence_tiles": 1, "strong": {"probability": 0.0}}
    return config.changed({"rounds": {**plain, **(rounds or {})}})


def adapted(
    config: StyleFilterConfig, domains: Domains, start: UNet | None = None
) -> tuple[UNet, list[Progress]]:
    reports: list[Progress] = []
    run = Run(reports.append)
    return adapt_in_rounds(start or untrained(config).eval(), *domains, config, run), reports


def decided(config: StyleFilterConfig) -> UNet:
    """An untrained segmenter whose logits are as far apart as those of a trained one."""
    segmenter = untrained(config).eval()
    with torch.no_grad():
        segmenter.head.weight *= 20
    return segmenter


def sections_of(domain: Domain, step: int = 1) -> list[Crop]:
    """The crops of a step's batch."""
    purpose = "target" if isinstance(domain, StylisedDomain) else "source"
    sampler = Sampler(domain.training_sections(), 0, "adapt", purpose)
    return [Crop(sample.section, 0, 0, 48) for sample in sampler.batch(step, 3)]


def labels_by(labeler: UNet, domains: Domains, config: StyleFilterConfig, step: int = 1) -> Tensor:
    """The labels of a step's batch, where the start of ``config`` is the source-only segmenter."""
    start = untrained(config).eval()
    labels = SectionLabels(labeler.eval(), start, domains[1], config, NO_PRIOR)
    return torch.from_numpy(np.stack([labels.of_crop(c) for c in sections_of(domains[1], step)]))


def hand_losses(
    student: UNet, labels: Tensor, domains: Domains, config: StyleFilterConfig, step: int = 1
) -> dict[str, float]:
    source, target = domains
    of_source, of_target = (
        [crop.section.index for crop in sections_of(domain, step)] for domain in domains
    )
    tiles = TilePixels.of([tiles_of(target, crop) for crop in sections_of(target, step)])
    with torch.no_grad():
        logits = student(images(target)[of_target] * 2 - 1)
        on_source = student(images(source)[of_source] * 2 - 1)
        return {
            "loss_source": F.cross_entropy(on_source, masks(source)[of_source]).item(),
            "loss_target": F.cross_entropy(logits, labels, ignore_index=255).item(),
            "loss_presence": presence_loss(logits, tiles, config.rounds.presence_share).item(),
        }


def losses_of(report: Progress) -> dict[str, float]:
    return {name: value for name, value in report.values.items() if name.startswith("loss_")}


@pytest.mark.parametrize("segmenter", [GROUP, BATCH])
def test_the_losses_of_a_step(domains: Domains, segmenter: Any) -> None:
    config = whole_sections(segmenter)
    start = untrained(config).eval()
    expected = hand_losses(start, labels_by(start, domains, config), domains, config)
    report = adapted(config, domains, start)[1][0]
    assert losses_of(report) == pytest.approx(expected, rel=1e-4)


def test_parts_make_the_same_step(domains: Domains) -> None:
    whole, parts = (
        adapted(whole_sections(accumulate=accumulate, learning_rate=1e-4), domains)
        for accumulate in (1, 3)
    )
    assert losses_of(parts[1][0]) == pytest.approx(losses_of(whole[1][0]), rel=1e-4)
    for one, other in zip(whole[0].parameters(), parts[0].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


# --- rounds ---------------------------------------------------------------------------------------


def mixture(old: UNet, new: UNet, share: float) -> UNet:
    mixed, weights = copy.deepcopy(old), new.state_dict()
    mixed.load_state_dict(
        {name: share * w + (1 - share) * weights[name] for name, w in old.state_dict().items()}
    )
    return mixed


def close(one: UNet, other: UNet) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


def test_the_result_is_the_average(domains: Domains) -> None:
    config = whole_sections()
    start = untrained(config).eval()
    first, second = (
        adapted(whole_sections(rounds={"ema_decay": 0.0}, steps=steps), domains)[0]
        for steps in (1, 2)
    )
    # With a decay of 0 the average is the student; else it has 1 / 10 and 2 / 11 of the old.
    after_one = mixture(start, first, 1 / 10)
    assert close(adapted(whole_sections(steps=1), domains)[0], after_one)
    assert close(adapted(whole_sections(steps=2), domains)[0], mixture(after_one, second, 2 / 11))
    low = adapted(whole_sections(rounds={"ema_decay": 0.15}, steps=2), domains)[0]
    assert close(low, mixture(after_one, second, 0.15))


def test_labels_are_made_anew_before_each_round(domains: Domains) -> None:
    every = {
        every: whole_sections(rounds={"relabel_every_steps": every}, steps=3) for every in (1, 2, 9)
    }
    start = untrained(every[1]).eval()
    # Until the second round nothing differs.
    students = [
        adapted(
            whole_sections(rounds={"ema_decay": 0.0, "relabel_every_steps": 9}, steps=n), domains
        )[0]
        for n in (1, 2)
    ]
    averages = [
        adapted(whole_sections(rounds={"relabel_every_steps": 9}, steps=n), domains)[0]
        for n in (1, 2)
    ]
    labelers = {1: averages[0], 2: start, 9: start}
    for number, config in every.items():
        labels = labels_by(labelers[number], domains, config, 2)
        expected = hand_losses(students[0], labels, domains, config, 2)
        assert losses_of(adapted(config, domains)[1][1]) == pytest.approx(expected, rel=1e-4)
    # With rounds of two steps the third step is the first with new labels.
    labels = labels_by(averages[1], domains, every[2], 3)
    expected = hand_losses(students[1], labels, domains, every[2], 3)
    assert losses_of(adapted(every[2], domains)[1][2]) == pytest.approx(expected, rel=1e-4)


def test_a_student_set_back_begins_as_the_first_did(domains: Domains) -> None:
    config = whole_sections(
        rounds={"relabel_every_steps": 2, "reinitialise_student": True}, steps=3
    )
    start = untrained(config).eval()
    average = adapted(whole_sections(steps=2), domains)[0]
    labels = labels_by(average, domains, config, 3)
    expected = hand_losses(start, labels, domains, config, 3)
    segmenter, reports = adapted(config, domains)
    assert losses_of(reports[2]) == pytest.approx(expected, rel=1e-4)
    # The average begins anew, too: a step from the start away, of which it keeps a tenth.
    moved = [
        (a - b).abs().max().item()
        for a, b in zip(segmenter.parameters(), start.parameters(), strict=True)
    ]
    assert max(moved) < 0.9 * 1e-2 * 1.05  # AdamW's first step is as long as the rate


# --- statistics -----------------------------------------------------------------------------------


def statistics(segmenter: UNet) -> list[Tensor]:
    return [value for norm in norms(segmenter) for value in (norm.running_mean, norm.running_var)]


def test_statistics_of_the_source_stay_as_they_were(domains: Domains) -> None:
    config = whole_sections(BATCH, steps=3)
    start = untrained(config)
    estimate_statistics(start, [images(domains[0]) * 2 - 1])
    segmenter = adapted(config, domains, start.eval())[0]
    assert not equal_weights(segmenter, start)
    for before, after in zip(statistics(start), statistics(segmenter), strict=True):
        assert torch.equal(before, after)


def test_statistics_of_the_target_are_those_of_the_average_on_it(domains: Domains) -> None:
    config = whole_sections(BATCH, {"statistics": "target"}, steps=3)
    segmenter = adapted(config, domains)[0]
    again = copy.deepcopy(segmenter)
    estimate_statistics(again, [images(domains[1]) * 2 - 1])
    for estimated, stored in zip(statistics(again), statistics(segmenter), strict=True):
        torch.testing.assert_close(stored, estimated, rtol=1e-4, atol=1e-5)


def test_statistics_of_the_target_are_estimated_without_noise(domains: Domains) -> None:
    noisy = {"rotate": False, "brightness": 0.5, "contrast": 0.5, "noise_sigma": 0.5}
    config = whole_sections(BATCH, {"statistics": "target"}, augmentation=noisy)
    segmenter = adapted(config, domains)[0]
    expected = copy.deepcopy(segmenter)
    estimate_statistics(expected, [images(domains[1]) * 2 - 1])
    for estimated, stored in zip(statistics(expected), statistics(segmenter), strict=True):
        torch.testing.assert_close(stored, estimated, rtol=1e-4, atol=1e-5)


def test_scores_on_the_way_change_nothing(domains: Domains) -> None:
    rounds = {"statistics": "target", "area_power": 1.0, "relabel_every_steps": 1}
    often, once = (
        adapted(whole_sections(BATCH, rounds, steps=2, validate_every_steps=every), domains)[0]
        for every in (1, 2)
    )
    assert equal_weights(often, once)


# --- area given presence --------------------------------------------------------------------------


@pytest.fixture
def tiled(tmp_path: Path) -> Domains:
    """Tiles of 6 px, labelled by the masks: 64 in each section, 9 or more with a square."""
    source, target = domains_of(tmp_path)
    return source, inverted(relabelled(target.raw, 6, splits=["train"]), tmp_path)


def test_the_area_of_the_result_is_corrected_if_asked_for(tiled: Domains) -> None:
    labels = TrainingLabels.of(tiled[1])
    assert (labels.num_tiles, labels.tile_px) == (192, 6)
    assert labels.uninformative.tolist() == [True, False]
    prior = prior_by_labels(*tiled)
    for power in (0.5, 1.0):
        corrected, by_hand = (
            adapted(config, tiled, decided(config))[0]
            for config in (
                whole_sections(rounds={"area_power": power, "area_at_end": at_end})
                for at_end in (True, False)
            )
        )
        bias = class_bias(predicted_in_tiles(by_hand, tiled[1], 48), prior, power)
        assert bias[0] == 0 != bias[1]
        fold(by_hand, bias)
        assert equal_weights(corrected, by_hand)


# --- each part can be left out --------------------------------------------------------------------

OFF: dict[str, dict[str, Any]] = {
    "add_share": {"add_share": 0.0},
    "presence_weight": {"presence_weight": 0.0},
    "area_power": {"area_power": 0.0},
    "protect_uninformative": {"protect_uninformative": False},
}
ON = {"area_power": 1.0, "add_share": 0.3, "relabel_every_steps": 2}


def test_without_labels_no_part_changes_anything(tmp_path: Path) -> None:
    domains = domains_of(tmp_path, [((U, U), (U, U))] * 3)
    with_all = adapted(whole_sections(rounds=ON, steps=3), domains)[0]
    for name, off in OFF.items():
        without = adapted(whole_sections(rounds=ON | off, steps=3), domains)[0]
        assert equal_weights(without, with_all), name


def test_with_labels_each_part_changes_the_result(tiled: Domains) -> None:
    start = decided(whole_sections())
    with_all = adapted(whole_sections(rounds=ON), tiled, start)[0]
    for name in ("add_share", "presence_weight", "area_power"):
        without = adapted(whole_sections(rounds=ON | OFF[name]), tiled, start)[0]
        assert not equal_weights(without, with_all), name


def test_a_presence_loss_of_no_weight_is_not_computed(domains: Domains) -> None:
    reports = adapted(whole_sections(rounds=OFF["presence_weight"]), domains)[1]
    assert losses_of(reports[0]).keys() == {"loss_source", "loss_target"}


def test_only_the_student_is_changed_strongly(domains: Domains) -> None:
    mild, strong = (
        losses_of(adapted(whole_sections(rounds={"strong": {"probability": p}}), domains)[1][0])
        for p in (0.0, 1.0)
    )
    assert strong["loss_source"] == mild["loss_source"]
    assert abs(strong["loss_target"] - mild["loss_target"]) > 1e-3


def test_few_tiles_weigh_less(domains: Domains) -> None:
    """Of the six tiles one has no label."""
    assert TrainingLabels.of(domains[1]).num_tiles == 5
    full, half, hand = (
        adapted(whole_sections(rounds=rounds), domains)[0]
        for rounds in (
            {"presence_tiles": 5},
            {"presence_tiles": 10},
            {"presence_weight": 0.25, "presence_tiles": 5},
        )
    )
    assert equal_weights(half, hand)
    assert not equal_weights(half, full)


# --- masked sections ------------------------------------------------------------------------------


def test_a_masked_section_is_learnt_from_its_mask(domains: Domains) -> None:
    config = whole_sections(rounds={"masked_sections": 3, "mask_share": 0.0})
    start = untrained(config).eval()
    truth = masks(domains[1])[[crop.section.index for crop in sections_of(domains[1])]]
    expected = hand_losses(start, truth, domains, config)
    assert losses_of(adapted(config, domains, start)[1][0]) == pytest.approx(expected, rel=1e-4)


def test_a_share_of_the_crops_is_of_the_masked_sections(domains: Domains) -> None:
    config = whole_sections(rounds={"masked_sections": ("s1",), "mask_share": 1.0})
    start = untrained(config).eval()
    loss = losses_of(adapted(config, domains, start)[1][0])["loss_target"]
    with torch.no_grad():
        logits = start(images(domains[1])[[1]] * 2 - 1)
        expected = F.cross_entropy(logits, masks(domains[1])[[1]], ignore_index=255).item()
    assert loss == pytest.approx(expected, rel=1e-4)


def test_without_masked_sections_masks_change_nothing(domains: Domains) -> None:
    fields: list[dict[str, Any]] = [{}, {"mask_share": 1.0, "mask_rows": 0.5}]
    one, other = (adapted(whole_sections(rounds=each, steps=2), domains)[0] for each in fields)
    assert equal_weights(one, other)


# --- points ---------------------------------------------------------------------------------------


def with_points(domains: Domains, folder: Path, *points: Point) -> Domains:
    """The points lie in the second section, in the tile that holds each."""
    raw = domains[1].raw
    tiles = [
        replace(tile, points=tuple(p for p in points if tile.x0 <= p.x < tile.x0 + tile.width))
        if tile.section == 1
        else tile
        for tile in raw.tiles
    ]
    pointed = Domain(raw.store, raw.info, raw.sections, tiles, working_nm=raw.working_nm)
    return domains[0], inverted(pointed, folder)


POINTS = Point(10, 12, 1, True), Point(30, 40, 0, True), Point(20, 40, 1, False)


def test_pixels_around_points_have_a_loss_of_their_own(domains: Domains, tmp_path: Path) -> None:
    pointed = with_points(domains, tmp_path / "p", *POINTS)
    config = whole_sections(rounds={"point_radius_nm": 8.0})
    start = decided(config)
    report = losses_of(adapted(config, pointed, start)[1][0])
    with torch.no_grad():
        log_p = F.log_softmax(start(images(pointed[1])[[1]] * 2 - 1), dim=1)[0]
    around = [
        (y, x, number)
        for cy, cx, number in ((10, 12, 1), (30, 40, 0))
        for y in range(cy - 2, cy + 3)
        for x in range(cx - 2, cx + 3)
        if (y - cy) ** 2 + (x - cx) ** 2 <= 4
    ]
    assert len(around) == 2 * 13
    expected = np.mean([-log_p[number, y, x].item() for y, x, number in around])
    assert report["loss_points"] == pytest.approx(expected, rel=1e-4)
    labels = SectionLabels(start, start, pointed[1], config, NO_PRIOR).of(pointed[1].sections[1])
    assert all(labels[y, x] == number for y, x, number in around)
    assert labels[20, 40] == 0
    two = adapted(config.changed({"adaptation": {"accumulate": 3}}), pointed, start)[1][0]
    assert losses_of(two) == pytest.approx(report, rel=1e-4)


def test_points_of_no_weight_change_nothing(domains: Domains, tmp_path: Path) -> None:
    pointed = with_points(domains, tmp_path / "p", *POINTS)
    without, off, on = (
        adapted(whole_sections(rounds=rounds, steps=2), of)[0]
        for rounds, of in (
            ({}, domains),
            ({"point_weight": 0.0}, pointed),
            ({}, pointed),
        )
    )
    assert equal_weights(without, off)
    assert not equal_weights(without, on)


# --- poor labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        [((A, A), (A, A))] * 3,
        [((P, P), (P, P))] * 3,
        [((A, P), (P, A), (P, A), (A, P))] * 3,  # each half says both, one after the other
        [((P, P), (U, U)), ((U, U), (U, U)), ((U, U), (U, U))],
    ],
    ids=["all-absent", "all-present", "contradictory", "one-tile"],
)
def test_poor_labels_end_in_finite_weights(tmp_path: Path, labels: Any) -> None:
    config = whole_sections(BATCH, {"statistics": "target", "relabel_every_steps": 1}, steps=2)
    segmenter, reports = adapted(config, domains_of(tmp_path, labels), decided(config))
    assert all(bool(value.isfinite().all()) for value in segmenter.state_dict().values())
    if labels[0] == ((A, A), (A, A)):  # no class is left for any pixel
        assert reports[0].values["loss_target"] == 0
