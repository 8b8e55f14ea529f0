"""Folds: contiguous blocks with gaps, names, and cross-validation by blocks or groups."""

from collections import Counter
from dataclasses import replace
from itertools import groupby

import pytest
from pydantic import ValidationError

from models.data.sections import Section
from models.data.splits import (
    DatasetFolds,
    Folds,
    SectionLists,
    block_splits,
    cross_validation,
    group_splits,
    named_groups,
    named_splits,
    with_splits,
)

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
    assert named_splits(names, SectionLists(train=("c", "a"), test=("b",))) == [T, E, T, U]
    assert named_splits(names, SectionLists()) == [U] * 4
    a = Section(0, "a", "val", 8, 9, has_mask=True, group="g")
    b = Section(1, "b", "train", 8, 9, has_mask=False)
    given = with_splits([a, b], SectionLists(train=("a",)))
    assert given == (replace(a, split="train"), replace(b, split="unused"))


def test_names_that_are_wrong() -> None:
    with pytest.raises(ValueError, match="val .*'z'"):
        named_splits(["a"], SectionLists(train=("a",), val=("z",)))
    with pytest.raises(ValueError, match="'a' .*train.*test"):
        SectionLists(train=("a",), test=("a",))
    with pytest.raises(ValueError, match="'a' .*train.*train"):
        SectionLists(train=("a", "a"))


def test_groups_stay_together_by_default() -> None:
    names = numbered(12)
    groups = [f"g{n % 6}" for n in range(12)]
    splits = group_splits(names, groups)
    assert {split: splits.count(split) for split in (T, V, E)} == {T: 8, V: 2, E: 2}
    assert splits[:6] == splits[6:]  # a group's two sections are alike
    assert group_splits(names[:4], ["a", "b", "a", "b"]) == [T] * 4


def test_every_section_is_in_one_group() -> None:
    assert named_groups(["a", "b", "c"], {"x": ["c", "a"], "y": ["b"]}) == ["x", "y", "x"]
    with pytest.raises(ValueError, match="'x' .*'z'"):
        named_groups(["a"], {"x": ["a", "z"]})
    with pytest.raises(ValueError, match="'a' .*'x'.*'y'"):
        named_groups(["a"], {"x": ["a"], "y": ["a"]})
    with pytest.raises(ValueError, match="'b' .*no group"):
        named_groups(["a", "b"], {"x": ["a"]})


LETTERS = {T: "t", V: "v", E: "e", U: "-"}


def drawn(names: list[str], fold: SectionLists) -> str:
    """One letter a section."""
    return "".join(LETTERS[split] for split in named_splits(names, fold))


def numbered(number: int) -> list[str]:
    return [f"s{n:02d}" for n in range(number)]


def test_blocks_rotate_with_an_unused_section_at_every_border() -> None:
    names = numbered(20)
    assert [drawn(names, fold) for fold in cross_validation(names)] == [
        "eeee-vvv-ttttttttttt",
        "ttt-eeee-vvv-ttttttt",
        "ttttttt-eeee-vvv-ttt",
        "ttttttttttt-eeee-vvv",
        "vvvv-tttttttttt-eeee",
    ]


def test_the_fewest_sections_for_blocks() -> None:
    names = numbered(10)
    folds = cross_validation(names, num_folds=3)
    assert [drawn(names, fold) for fold in folds] == ["ee-v-ttttt", "t-ee-v-ttt", "ttt-ee-v-t"]
    with pytest.raises(ValueError, match=r"^9 .*at least 10"):
        cross_validation(names[:9], num_folds=1)
    with pytest.raises(ValueError, match=r" 7 .*at least 14"):
        cross_validation(names, num_folds=7)


@pytest.mark.parametrize("num_folds", [1, 3, 5, 8])
def test_blocks_of_any_number(num_folds: int) -> None:
    for number in range(2 * max(5, num_folds), 60):
        names = numbered(number)
        folds = cross_validation(names, num_folds=num_folds)
        assert len(folds) == num_folds
        for fold in folds:
            picture = drawn(names, fold)
            for one, other in ("te", "tv", "ev"):
                assert one + other not in picture
                assert other + one not in picture
            assert 2 <= picture.count("-") <= 3
            assert fold.train
            assert fold.val
        tested = [name for fold in folds for name in fold.test]
        assert len(tested) == len(set(tested))
        if num_folds >= 5:
            assert sorted(tested) == names


GROUPS = {f"g{n}": [4, 4, 2, 2, 1, 1, 1, 3, 2, 4, 3, 3][n] for n in range(12)}
OF_SECTION = [group for group, size in GROUPS.items() for _ in range(size)]
NAMES = [f"{group}/{n}" for n, group in enumerate(OF_SECTION)]


def roles_of_groups(fold: SectionLists) -> dict[str, set[str]]:
    return {role: {n.split("/")[0] for n in names} for role, names in fold.model_dump().items()}


def test_groups_are_divided_whole_by_number_of_sections() -> None:
    folds = cross_validation(NAMES, OF_SECTION)
    assert len(folds) == 5
    for fold in folds:
        groups = roles_of_groups(fold)
        assert sum(len(its) for its in groups.values()) == len(GROUPS)
        assert len(fold.train) + len(fold.val) + len(fold.test) == len(NAMES) == 30
        assert abs(len(fold.train) - 18) <= 2
        assert abs(len(fold.val) - 6) <= 2
        assert abs(len(fold.test) - 6) <= 2
    assert len({fold.test for fold in folds}) == 5
    assert cross_validation(NAMES, OF_SECTION) == folds
    assert cross_validation(NAMES, OF_SECTION, num_folds=2) == folds[:2]


def test_classes_of_three_groups_are_in_all_roles() -> None:
    classes = {group: ["common"] for group in GROUPS}
    for group in ("g0", "g5", "g9"):
        classes[group] = ["common", "rare"]
    classes["g1"] = classes["g2"] = ["of two"]
    for fold in cross_validation(NAMES, OF_SECTION, classes=classes):
        for groups in roles_of_groups(fold).values():
            assert len(groups & {"g0", "g5", "g9"}) == 1
    plain = cross_validation(NAMES, OF_SECTION)
    spread = [[len(g & {"g0", "g5", "g9"}) for g in roles_of_groups(f).values()] for f in plain]
    assert any(0 in its for its in spread)


def test_few_groups() -> None:
    folds = cross_validation(["a", "b", "c"], ["x", "y", "z"], num_folds=3)
    assert {fold.test for fold in folds} == {("a",), ("b",), ("c",)}
    assert all(len(fold.train) == len(fold.val) == 1 for fold in folds)
    with pytest.raises(ValueError, match=r" 4: .*1000 .* 3 group"):
        cross_validation(["a", "b", "c"], ["x", "y", "z"], num_folds=4)
    with pytest.raises(ValueError, match=r" 1: .* 2 group"):
        cross_validation(["a", "b", "c"], ["x", "y", "y"], num_folds=1)


def test_conditions_that_cannot_be_met_are_named() -> None:
    names = [f"{n}" for n in range(4)]
    classes = {"0": ["p", "q", "r"], "1": ["p", "q"], "2": ["p", "r"], "3": ["q", "r"]}
    with pytest.raises(ValueError, match=r"4 group.*p, q, r"):
        cross_validation(names, names, classes=classes, num_folds=1)


def test_groups_in_many_sizes_fill_all_roles() -> None:
    sizes = {"whole": 50, **{f"small{n}": 1 for n in range(2)}}
    groups = [group for group, size in sizes.items() for _ in range(size)]
    names = numbered(len(groups))
    fold = cross_validation(names, groups, num_folds=1)[0]
    assert Counter(map(len, fold.model_dump().values())) == {50: 1, 1: 2}


FOLDS = cross_validation(numbered(10), num_folds=2)


def document(**changes: object) -> DatasetFolds:
    return DatasetFolds(**{"dataset": "cells", "digest": "abc", "folds": FOLDS, **changes})


def test_published_splits_come_back_equal() -> None:
    splits = Folds(source=document(), target=document(digest="def"))
    read = Folds.model_validate_json(splits.model_dump_json())
    assert read == splits
    assert read.source.matching(numbered(10), "abc") == tuple(FOLDS)


def test_folds_that_an_earlier_version_published_are_read() -> None:
    folds = Folds(source=document(), target=document(digest="def"))
    earlier = folds.model_dump_json().replace('"folds"', '"splits"')
    assert Folds.model_validate_json(earlier) == folds


def test_splits_of_another_dataset_are_refused() -> None:
    with pytest.raises(ValueError, match="abc.*xyz"):
        document().matching(numbered(10), "xyz")
    with pytest.raises(ValueError, match=" 1: val .*'s03'.*'cells'"):
        document().matching([n for n in numbered(10) if n != "s03"], "abc")
    empty = document(folds=[*FOLDS, SectionLists(train=("s00",))])
    with pytest.raises(ValueError, match=" 3 of 'cells': test"):
        empty.matching(numbered(10), "abc")


def test_splits_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValidationError, match="'a' .*train.*test"):
        SectionLists(train=("a", "b"), test=("a",))
    with pytest.raises(ValidationError, match="'a' .*val.*val"):
        SectionLists(val=("a", "a"))
    with pytest.raises(ValidationError, match=r"source .*2 .*target 1"):
        Folds(source=document(), target=document(folds=FOLDS[:1]))
    with pytest.raises(ValidationError, match="at least 1 item"):
        document(folds=[])
