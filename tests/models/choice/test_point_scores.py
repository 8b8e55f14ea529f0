"""Points compare predictions like tiles do: found near them, or claimed at them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.choice.judging import Candidate, Facts, judge
from models.choice.label_scores import Evidence, Predict, gather
from models.choice.point_scores import rows_of_points
from models.data.domain import Domain, Point
from tests.models.choice.predictions import finder, nothing, rare_domain
from tests.models.domains import A, P, U


def pointed(store: Path, *points: Point) -> Domain:
    """The points lie in the first tile of the first section, where the square is rows 2 to 13."""
    target = rare_domain(store)
    tiles = [replace(target.tiles[0], points=points), *target.tiles[1:]]
    return Domain(target.store, target.info, target.sections, tiles)


def rows(target: Domain, predict: Predict) -> list[tuple[list[int], list[float], list[float]]]:
    section = target.sections[0]
    found = rows_of_points(predict(target.image(section)), target, section)
    return [(labels.tolist(), shares.tolist(), peaks.tolist()) for labels, shares, peaks in found]


def test_a_present_point_is_found_near_it_and_an_absent_one_claimed_at_it(tmp_path: Path) -> None:
    # Pixels of 4 nm, so 40 nm are 10 pixels: the third point is 11 from the square's edge.
    here, near, far = (Point(5, x, 1, present=True) for x in (5, 23, 24))
    absent = [Point(5, x, 1, present=False) for x in (5, 23)]
    target = pointed(tmp_path / "t.zarr", here, near, far, *absent)
    found = rows(target, finder(0.9, false=0.1))
    assert [labels for labels, _, _ in found] == [[U, P]] * 3 + [[U, A]] * 2
    assert [shares[1] for _, shares, _ in found] == [1, 1, 0, 1, 0]
    assert [peaks[1] for _, _, peaks in found] == pytest.approx([0.9, 0.9, 0.1, 0.9, 0.1])


def seen(target: Domain, predict: Predict) -> Evidence:
    return gather(predict, target, target.sections)


def test_points_count_as_misses_and_claims_and_not_as_tiles(tmp_path: Path) -> None:
    points = Point(5, 5, 1, present=True), Point(1, 1, 1, present=False)
    target = pointed(tmp_path / "t.zarr", *points)
    base, other = seen(target, nothing), seen(target, finder())
    verdict = judge(
        [Candidate("source-only", "S", base), Candidate("c", "C", other)],
        Facts(("background", "square")),
    )
    assert (verdict.num_tiles, verdict.num_points) == (128, 2)
    misses = [c.classes["square"].misses for c in verdict.candidates]
    assert [(each.wrong, each.of) for each in misses] == [(9, 9), (0, 9)]
    claims = [c.classes["square"].claims for c in verdict.candidates]
    assert [(each.wrong, each.of) for each in claims] == [(0, 121), (0, 121)]
    without = seen(rare_domain(tmp_path / "u.zarr"), finder())
    assert other.area()[1] == without.area()[1]  # a disc is no tile whose area could be told
    assert other.of(np.arange(130) < 10).num_tiles == 10 - int(other.is_point[:10].sum())  # type: ignore[index]
