"""Splits: contiguous blocks with gaps, or names."""

from itertools import groupby

import pytest

from models.data.splits import block_splits, named_splits

T, V, E, U = "train", "val", "test", "unused"


@pytest.mark.parametrize(
    ("num_sections", "splits"),
    [
        (0, []),
        (1, [T]),
        (4, [T] * 4),
        (5, [T, U, V, U, E]),
        (6, [T, T, U, V, U, E]),
        (10, [T] * 4 + [U] + [V] * 2 + [U] + [E] * 2),
        (20, [T] * 10 + [U] + [V] * 4 + [U] + [E] * 4),
    ],
)
def test_blocks_with_a_section_between_them(num_sections: int, splits: list[str]) -> None:
    assert block_splits(num_sections) == splits


def test_blocks_are_six_two_two_for_any_number() -> None:
    for num_sections in range(5, 200):
        splits = block_splits(num_sections)
        assert [split for split, _ in groupby(splits)] == [T, U, V, U, E]
        assert len(splits) == num_sections
        assert splits.count(U) == 2
        assert splits.count(V) == splits.count(E)
        assert abs(splits.count(V) - 0.2 * (num_sections - 2)) <= 0.5


def test_names_choose_and_the_rest_is_unused() -> None:
    names = ["a", "b", "c", "d"]
    assert named_splits(names, {T: ["c", "a"], V: [], E: ["b"]}) == [T, E, T, U]
    assert named_splits(names, {}) == [U] * 4


def test_names_that_are_wrong() -> None:
    with pytest.raises(ValueError, match="val lists 'z', which is no section"):
        named_splits(["a"], {T: ["a"], V: ["z"]})
    with pytest.raises(ValueError, match="'a' is listed in train and in test"):
        named_splits(["a"], {T: ["a"], E: ["a"]})
    with pytest.raises(ValueError, match="'a' is listed in train and in train"):
        named_splits(["a"], {T: ["a", "a"]})
