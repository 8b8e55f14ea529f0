"""The order in which tiles are best labelled."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from models.labels_used.next_tiles import TilesToOrder, disagreement, order

SIDE = 16.0


def tiles(
    presence: Sequence[Sequence[float]] = (),
    *,
    sections: int = 1,
    across: int = 4,
    labels: dict[int, int] | None = None,
) -> TilesToOrder:
    """Sections of ``across`` tiles in a row, with one class; ``presence`` by candidate and tile."""
    number = sections * across
    known = np.full((number, 1), -1)
    for tile, label in (labels or {}).items():
        known[tile] = label
    x = SIDE * (np.arange(number) % across) + SIDE / 2
    return TilesToOrder(
        sections=np.arange(number) // across,
        centres=np.stack([np.full(number, SIDE / 2), x], axis=1),
        sides=np.full((number, 2), SIDE),
        labels=known,
        presence=np.array(presence, np.float64).reshape(len(presence), number, 1),
    )


def numbers(asked: TilesToOrder, limit: int = 100) -> list[int]:
    return [pick.number for pick in order(asked, limit)]


def test_a_label_tells_one_bit_where_half_of_the_candidates_are_sure_of_each() -> None:
    presence = np.array([[0, 0.5, 1, 0.9], [1, 0.5, 1, 0.1]])[..., None]
    told = disagreement(presence)[:, 0]
    entropy = -0.9 * np.log2(0.9) - 0.1 * np.log2(0.1)
    assert told == pytest.approx([1, 0, 0, 1 - entropy], abs=1e-4)


def test_tiles_that_candidates_dispute_come_first_and_doubt_alone_counts_nothing() -> None:
    asked = tiles([[0.5, 0.9, 0.1, 0.3], [0.5, 0.1, 0.1, 0.9]], across=1, sections=4)
    picks = order(asked, 4)
    assert picks[0].number == 1
    assert 3 in (picks[1].number, picks[2].number)
    assert picks[0].told == pytest.approx(0.531, abs=1e-3)
    assert [pick.told for pick in picks if pick.number in (0, 2)] == [0, 0]
    assert picks[0].presence is not None
    assert picks[0].presence == pytest.approx([0.5])


def test_labelled_tiles_are_left_out_and_the_limit_holds() -> None:
    asked = tiles([[0.1] * 4, [0.9] * 4], labels={1: 1, 2: 0})
    assert sorted(numbers(asked)) == [0, 3]
    assert len(numbers(asked, 1)) == 1
    assert numbers(tiles(labels=dict.fromkeys(range(4), 0))) == []


def test_no_two_neighbours_come_first() -> None:
    disputed = [[0.9, 0.92, 0.91, 0.5], [0.1, 0.08, 0.09, 0.4]]
    assert numbers(tiles(disputed))[:2] == [1, 3]
    # Of tiles that nobody looked at neither.
    first = numbers(tiles(across=5))[:3]
    assert sorted(first) == [0, 2, 4]


def test_picks_are_spread_over_sections() -> None:
    asked = tiles([[0.9] * 8 + [0.89] * 8, [0.1] * 8 + [0.11] * 8], sections=2, across=8)
    assert [n // 8 for n in numbers(asked, 6)] == [0, 1, 0, 1, 0, 1]
    unseen = tiles(sections=5, across=8)
    assert sorted(n // 8 for n in numbers(unseen, 5)) == [0, 1, 2, 3, 4]


def test_the_class_with_the_rarer_label_comes_first() -> None:
    one = tiles([[0.9] * 6, [0.1] * 6], sections=6, across=1)
    both = np.array([[[0.9, 0.5], [0.5, 0.9]] * 3, [[0.1, 0.5], [0.5, 0.1]] * 3])
    labels = np.full((6, 2), -1)
    labels[4:, 0] = 1, 0  # the second class has no label
    asked = replace(one, labels=labels, presence=both)
    # Tiles 1 and 3 are disputed for the second class.
    assert numbers(asked)[0] in (1, 3)


def test_tiles_that_nobody_looked_at_come_last() -> None:
    presence = np.array([[0.1, np.nan, 0.1, 0.2], [0.9, np.nan, 0.1, 0.2]])
    asked = tiles(presence.tolist(), sections=4, across=1)
    picks = order(asked, 4)
    assert (picks[-1].number, picks[-1].told) == (1, None)
    assert picks[0].number == 0


def test_one_candidate_disputes_nothing() -> None:
    assert all(pick.told is None for pick in order(tiles([[0.5] * 4]), 4))


def test_without_candidates_grey_values_vary() -> None:
    asked = replace(tiles(across=8), grey=np.array([[0.0]] * 6 + [[0.0], [1.0]]))
    first = numbers(asked, 2)
    assert 7 in first


def test_the_order_holds_each_unlabelled_tile_once() -> None:
    rng = np.random.default_rng(0)
    presence = rng.random((3, 60))
    presence[:, ::7] = np.nan
    asked = tiles(presence.tolist(), sections=6, across=10, labels={3: 1, 44: 0})
    found = numbers(asked)
    assert sorted(found) == sorted(set(range(60)) - {3, 44})
