"""Scores from labels: against numbers computed by hand, and against predictions that must lose."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.choice.label_scores import FEW_TILES, gather
from models.data.domain import Tile
from tests.models.choice.predictions import TILE, evidence, finder, nothing, rare_domain
from tests.models.domains import A, P, U, write_domain


def test_the_loss_is_that_of_the_labels() -> None:
    labels = [P] * 10 + [A] * 10
    sure = evidence(labels, [0.9] * 10 + [0.1] * 10)
    assert sure.loss() == pytest.approx(-np.log(0.9))
    half = evidence(labels, [0.9] * 10 + [0.5] * 10)
    assert half.loss() == pytest.approx((-np.log(0.9) - np.log(0.5)) / 2)
    # A confidence cannot cost more than that of 0.01, so one wrong label decides nothing.
    wrong = evidence(labels, [0.0] * 10 + [0.1] * 10)
    assert wrong.loss() == pytest.approx((-np.log(0.01) - np.log(0.9)) / 2)


def test_a_label_with_few_tiles_weighs_less() -> None:
    few = evidence([P] * 1 + [A] * 30, [0.5] * 1 + [0.1] * 30)
    assert few.loss() == pytest.approx((0.2 * -np.log(0.5) + -np.log(0.9)) / 1.2)


def test_unknown_labels_take_no_part() -> None:
    some = evidence([P, A, U], [0.8, 0.3, 0.6])
    assert some.loss() == evidence([P, A], [0.8, 0.3]).loss()
    assert some.counts.tolist() == [[1, 1]]
    assert evidence([], []).loss() is None
    assert evidence([], []).gain_over(evidence([], [])) is None


def test_errors_are_counted_in_tiles() -> None:
    shares = [0.2, 0.009, 0.01, 0.0, 0.5]
    mixed = evidence([P, P, P, A, A], shares, shares=shares)
    assert mixed.errors.tolist() == [[1, 1]]  # a claim, and a miss below one hundredth
    assert mixed.balanced_accuracy() == pytest.approx([(2 / 3 + 1 / 2) / 2])
    assert mixed.f1() == pytest.approx([2 * 2 / (2 * 2 + 1 + 1)])
    assert mixed.area() == pytest.approx([(0.2 + 0.009 + 0.01) / 3])
    one_sided = evidence([A, A], [0.0, 0.0])
    assert np.isnan([*one_sided.balanced_accuracy(), *one_sided.f1(), *one_sided.area()]).all()


def test_a_class_is_judged_by_five_tiles_of_each_label() -> None:
    assert evidence([P] * 5 + [A] * 5, [0.5] * 10).judged.tolist() == [True]
    assert evidence([P] * 4 + [A] * 50, [0.5] * 54).judged.tolist() == [False]


def test_one_pass_reads_shares_and_peaks_off_each_tile(tmp_path: Path) -> None:
    image = np.zeros((32, 32), np.uint8)
    image[:8, :8] = 255
    tiles = [Tile(0, 0, 0, 16, 16, (P, P)), Tile(0, 16, 16, 16, 16, (U, A)),
             Tile(0, 0, 16, 16, 16, (U, U))]  # fmt: skip
    domain = write_domain(tmp_path / "d.zarr", [image], [None], ["train"], tiles)
    asked = []

    def predict(image: np.ndarray) -> np.ndarray:
        asked.append(image.shape)
        return finder(0.75, false=0.25)(image)

    found = gather(predict, domain, domain.sections)
    assert asked == [(32, 32)]
    assert found.labels.tolist() == [[P, P], [U, A]]
    assert found.shares.tolist() == [[0.75, 0.25], [1.0, 0.0]]
    assert found.peaks.tolist() == [[0.75, 0.75], [0.75, 0.25]]  # 8 of 256 pixels
    assert found.consistency is None


@pytest.mark.parametrize("steadiness", [False, True])
def test_to_find_nothing_loses_on_a_rare_class(tmp_path: Path, *, steadiness: bool) -> None:
    """15 of 16 tiles lack the class, so that by plain agreement nothing beats a poor finder."""
    domain = rare_domain(tmp_path / "d.zarr")
    predictions = nothing, finder(0.55, false=0.45)
    empty, poor = (
        gather(predict, domain, domain.sections, steadiness=steadiness) for predict in predictions
    )
    if steadiness:  # which counts only where labels are few: here 8 present, 40 absent
        few = (empty.labels[:, 1] == P) | (np.arange(len(empty.labels)) % 3 == 0)
        empty, poor = empty.of(few), poor.of(few)
        assert len(empty.labels) < FEW_TILES
    agreement = [(each.labels == (each.shares >= 0.01)).mean() for each in (empty, poor)]
    assert agreement[0] > 0.9
    assert poor.balanced_accuracy()[1] > empty.balanced_accuracy()[1] == 0.5
    assert poor.f1()[1] > empty.f1()[1] == 0
    assert poor.loss() < empty.loss()  # type: ignore[operator]
    gain = poor.gain_over(empty)
    assert gain is not None
    assert gain.low > 0


def test_a_class_that_is_drawn_half_as_large_is_seen_by_its_area_alone(tmp_path: Path) -> None:
    domain = rare_domain(tmp_path / "d.zarr")
    whole, half = (gather(finder(shrink=s), domain, domain.sections) for s in (0, 2))
    assert whole.loss() == half.loss()
    assert whole.errors.tolist() == half.errors.tolist()
    assert whole.area()[1] == pytest.approx((12 / TILE) ** 2)
    assert half.area()[1] == pytest.approx((8 / TILE) ** 2)


def test_consistency_is_the_overlap_under_rotation_and_noise(tmp_path: Path) -> None:
    domain = rare_domain(tmp_path / "d.zarr", sections=2)
    steady = gather(finder(), domain, domain.sections, steadiness=True)
    assert steady.consistency == 1.0

    def upper_half(image: np.ndarray) -> np.ndarray:
        """Predict by place, so that a turned image has another answer."""
        found = np.zeros(image.shape, np.float32)
        found[: len(found) // 2] = 1
        return np.stack([1 - found, found])

    # Each half overlaps the half of the turned image by a third of their union.
    by_place = gather(upper_half, domain, domain.sections, steadiness=True)
    assert by_place.consistency == pytest.approx(1 / 3)
    empty = gather(nothing, domain, domain.sections, steadiness=True)
    assert empty.consistency == pytest.approx(1 / 4)  # (1 + 0) / 2, twice


def test_consistency_counts_while_labels_are_few() -> None:
    few = evidence([P] * 10 + [A] * 10, [0.9] * 10 + [0.1] * 10)
    assert replace(few, consistency=0.5).loss() == pytest.approx(-np.log(0.9) - np.log(0.5))
    many = evidence([P, A] * (FEW_TILES // 2), [0.9, 0.1] * (FEW_TILES // 2))
    assert replace(many, consistency=0.5).loss() == many.loss()
    gain = few.gain_over(replace(few, consistency=0.5))
    assert gain is not None
    assert (gain.value, gain.low, gain.high) == pytest.approx((np.log(2),) * 3)


def test_the_interval_is_that_of_the_paired_difference() -> None:
    rng = np.random.default_rng(0)
    labels = [P, A] * 100
    noise = rng.uniform(0.1, 0.4, 200)
    base = evidence(
        labels, [1 - n if label == P else n for label, n in zip(labels, noise, strict=True)]
    )
    better = replace(base, peaks=np.where(base.labels == P, base.peaks + 0.05, base.peaks - 0.05))
    gain = better.gain_over(base)
    assert gain is not None
    assert gain.value == pytest.approx(base.loss() - better.loss())  # type: ignore[operator]
    assert gain.low < gain.value < gain.high
    assert gain.told
    each = base._losses - better._losses
    error = np.sqrt(sum(each[:, 0, n][base._known[:, 0, n]].var() / 100 for n in (0, 1))) / 2
    assert (gain.high - gain.low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    same = base.gain_over(base)
    assert same is not None
    assert (same.value, same.low, same.high, same.told) == (0, 0, 0, False)


def test_sections_are_drawn_where_there_are_five_and_else_runs_of_tiles() -> None:
    """Tiles of one section are alike: to draw them one by one would make the interval too short."""
    labels, peaks = [P] * 100 + [A] * 100, [0.9] * 60 + [0.4] * 40 + [0.1] * 100
    base = evidence([P] * 100 + [A] * 100, [0.8] * 100 + [0.1] * 100)
    tiles = evidence(labels, peaks)
    sections = np.arange(200) // 20
    as_sections = [replace(each, sections=sections) for each in (tiles, base)]
    few = [replace(each, sections=sections // 5) for each in (tiles, base)]
    widths = [
        gain.high - gain.low
        for one, other in ((tiles, base), as_sections, few)
        if (gain := one.gain_over(other)) is not None
    ]
    assert widths[1] > 1.5 * widths[0]
    assert widths[2] == pytest.approx(widths[0], rel=0.2)


def test_evidence_of_other_tiles_is_not_compared() -> None:
    with pytest.raises(ValueError, match="same tiles"):
        evidence([P, A], [0.5, 0.5]).gain_over(evidence([P, P], [0.5, 0.5]))


def test_a_part_of_the_tiles_is_evidence_too() -> None:
    whole = evidence([P, A, P], [0.9, 0.2, 0.4])
    part = whole.of(np.array([True, True, False]))
    assert part.loss() == evidence([P, A], [0.9, 0.2]).loss()
