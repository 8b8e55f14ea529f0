"""Divide the sections of a dataset between training, validation and test.

A section is never divided: all its tiles have its role.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, Self, get_args

import numpy as np
from pydantic import AliasChoices, FailFast, Field, model_validator

from models.config.base import FrozenConfig
from models.data.names import normal
from models.data.sections import Section, Split

Role = Literal["train", "val", "test"]
SectionName = Annotated[str, Field(max_length=300)]
SectionNames = Annotated[tuple[SectionName, ...], Field(max_length=1_000_000), FailFast()]
"""Names of sections. The first that is wrong is told alone, because there may be very many."""

_SHARES: dict[Role, float] = {"train": 0.6, "val": 0.2, "test": 0.2}
_MIN_BLOCKS = 5
_TRIES = 1000


def block_splits(num_sections: int) -> list[Split]:
    """Split sections in order into contiguous blocks, 60 / 20 / 20 %.

    Neighbouring sections are nearly the same picture, so one section between blocks is left
    ``unused``. Fewer than five sections cannot be divided in this way: all train.
    """
    if num_sections < 5:
        return ["train"] * num_sections
    # Two sections stand between the three blocks.
    held_out = max(1, round((num_sections - 2) * 0.2))
    num_train = num_sections - 2 - 2 * held_out
    train: list[Split] = ["train"] * num_train
    val: list[Split] = ["val"] * held_out
    test: list[Split] = ["test"] * held_out
    return [*train, "unused", *val, "unused", *test]


def named_groups(names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the group of each section, under which its name is listed.

    Raises:
        ValueError: a listed name is no section, or is listed twice; or a section is in no group.
    """
    known = set(map(normal, names))
    group_of: dict[str, str] = {}
    for group, members in groups.items():
        for name in map(normal, members):
            if name not in known:
                raise ValueError(
                    f"group {group!r} lists {name!r}, but no section has this name: it is the name "
                    "of its file without suffix, in a stack followed by its number"
                )
            if name in group_of:
                raise ValueError(
                    f"section {name!r} is listed in group {group_of[name]!r} and in group "
                    f"{group!r}: list it once"
                )
            group_of[name] = group
    for name in names:
        if normal(name) not in group_of:
            raise ValueError(
                f"section {name!r} is in no group: name the group of each section, or of none"
            )
    return [group_of[normal(name)] for name in names]


def named_unannotated(
    names: Sequence[str], class_names: Sequence[str], unannotated: Mapping[str, Sequence[str]]
) -> list[tuple[int, ...] | None]:
    """Return for each section the ids of the classes that list its name; None without any.

    Raises:
        ValueError: a listed name is no section.
    """
    found: dict[str, list[int]] = {normal(name): [] for name in names}
    for number, class_name in enumerate(class_names):
        for name in set(map(normal, unannotated.get(class_name, ()))):
            if name not in found:
                raise ValueError(
                    f"class {class_name!r} lists {name!r}, but no section has this name: it is the "
                    "name of its file without suffix, in a stack followed by its number"
                )
            found[name].append(number)
    return [tuple(found[normal(name)]) or None for name in names]


class SectionLists(FrozenConfig):
    """The names of the sections of each split. A section that no list names is unused."""

    train: SectionNames = Field((), description="The sections that networks learn from.")
    val: SectionNames = Field((), description="The sections that choose the weights to keep.")
    test: SectionNames = Field((), description="The sections that are only scored.")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        role_of: dict[str, Role] = {}
        for role in get_args(Role):
            for name in getattr(self, role):
                if name in role_of:
                    raise ValueError(
                        f"section {name!r} is listed in {role_of[name]} and in {role}: list it once"
                    )
                role_of[name] = role
        return self


def named_splits(names: Sequence[str], wanted: SectionLists) -> list[Split]:
    """Return the split of each section, under which its name is listed; else it is unused.

    Raises:
        ValueError: a listed name is no section.
    """
    known = set(map(normal, names))
    chosen: dict[str, Split] = {}
    for role in get_args(Role):
        for name in map(normal, getattr(wanted, role)):
            if name not in known:
                raise ValueError(
                    f"{role} lists {name!r}, but no section has this name: it is the name of its "
                    "file without suffix, in a stack followed by its number, as in 'stack/0003'"
                )
            chosen[name] = role
    return [chosen.get(normal(name), "unused") for name in names]


def with_splits(sections: Sequence[Section], wanted: SectionLists) -> tuple[Section, ...]:
    """Return the sections in the splits that ``wanted`` lists, as ``named_splits`` does."""
    splits = named_splits([section.name for section in sections], wanted)
    return tuple(replace(s, split=split) for s, split in zip(sections, splits, strict=True))


def group_splits(names: Sequence[str], groups: Sequence[str]) -> list[Split]:
    """Split sections about 60 / 20 / 20 %, by whole groups; all train without three groups."""
    if len(set(groups)) < len(_SHARES):
        return ["train"] * len(names)
    return named_splits(names, cross_validation(names, groups, num_folds=1)[0])


class DatasetFolds(FrozenConfig):
    """The folds of one dataset: several ways to divide its sections into splits."""

    dataset: str = Field(max_length=200, description="The name of the dataset.")
    digest: str = Field(max_length=100, description="The SHA-256 of the dataset's content.")
    # A file that was published with version 0.1.0 calls them ``splits``.
    folds: tuple[SectionLists, ...] = Field(
        min_length=1,
        max_length=20,
        validation_alias=AliasChoices("folds", "splits"),
        description="The sections of each split, fold by fold.",
    )

    def matching(self, names: Collection[str], digest: str) -> tuple[SectionLists, ...]:
        """Return the folds if they are those of the dataset with these sections.

        Raises:
            ValueError: it is another dataset, a listed section does not exist, or a fold has no
                section to train or to test on.
        """
        if digest != self.digest:
            raise ValueError(
                f"the folds divide {self.dataset!r} with digest {self.digest}, "
                f"not the dataset with digest {digest}: use folds of this dataset, or leave folds "
                "out"
            )
        known = set(names)
        for number, fold in enumerate(self.folds, start=1):
            for role in get_args(Role):
                listed: tuple[str, ...] = getattr(fold, role)
                for name in listed:
                    if name not in known:
                        raise ValueError(
                            f"fold {number}: {role} lists {name!r}, "
                            f"but no section of {self.dataset!r} has this name"
                        )
                if not listed and role != "val":
                    raise ValueError(f"fold {number} of {self.dataset!r}: {role} lists no section")
        return self.folds


class Folds(FrozenConfig):
    """The folds of a benchmark, as JSON, so that others can repeat it with the same ones."""

    source: DatasetFolds = Field(description="The folds of the source.")
    target: DatasetFolds = Field(description="The folds of the target.")

    @model_validator(mode="after")
    def _equally_many(self) -> Self:
        source, target = len(self.source.folds), len(self.target.folds)
        if source != target:
            raise ValueError(
                f"the source has {source} fold(s) and the target {target}: both need the same "
                "number of folds"
            )
        return self


def cross_validation(
    names: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    num_folds: int = 5,
    classes: Mapping[str, Collection[str]] | None = None,
) -> list[SectionLists]:
    """Divide sections into train, val and test, about 60 / 20 / 20 %, in several ways.

    Without ``groups``, sections are divided into contiguous blocks, and each fold tests on another
    block. ``groups`` names the group of each section (the volume it was cut from): no group spans
    two roles, and no two folds test the same groups. ``classes`` names the classes of each group:
    every class that at least three groups have is in all three roles.

    Raises:
        ValueError: there are too few sections or groups for that.
    """
    if groups is None:
        return _rotated_blocks(names, num_folds)
    sizes = Counter(groups)
    divisions: list[dict[str, Role]] = []
    for fold in range(num_folds):
        divisions.append(_divided(sizes, classes or {}, fold, [_tested(d) for d in divisions]))
    return [_lists(names, [division[group] for group in groups]) for division in divisions]


def _lists(names: Sequence[str], roles: Sequence[Split]) -> SectionLists:
    return SectionLists(
        **{
            role: tuple(name for name, its in zip(names, roles, strict=True) if its == role)
            for role in get_args(Role)
        }
    )


def _rotated_blocks(names: Sequence[str], num_folds: int) -> list[SectionLists]:
    """Return folds by blocks: fold i tests on block i, validates on the next, trains on the others.

    The first block follows the last. Neighbouring sections are nearly the same picture, so one is
    unused at every border of two roles. It is never a test section: with as many folds as blocks,
    each section is tested once.
    """
    # With fewer than five blocks the shares would be far from 60 / 20 / 20 %.
    num_blocks = max(_MIN_BLOCKS, num_folds)
    if len(names) < 2 * num_blocks:
        raise ValueError(
            f"{len(names)} section(s) are too few for {num_folds} fold(s), which take at least "
            f"{2 * num_blocks} ({num_blocks} blocks with a section between them unused): "
            "ask for fewer folds, or register more sections"
        )
    blocks = np.arange(len(names)) * num_blocks // len(names)
    folds = []
    for fold in range(num_folds):
        roles: list[Split] = ["train"] * len(names)
        for index, block in enumerate(blocks):
            if block == fold:
                roles[index] = "test"
            elif block == (fold + 1) % num_blocks:
                roles[index] = "val"
        borders = [(i - 1, i) for i in range(1, len(names)) if roles[i - 1] != roles[i]]
        for left, right in borders:
            # A training section is the cheapest to lose.
            taken = "train" if "train" in (roles[left], roles[right]) else "val"
            roles[left if roles[left] == taken else right] = "unused"
        folds.append(_lists(names, roles))
    return folds


def _divided(
    sizes: Mapping[str, int],
    classes: Mapping[str, Collection[str]],
    fold: int,
    tested: Collection[frozenset[str]],
) -> dict[str, Role]:
    """Return the role of each group in a fold: the first shuffle that meets all conditions."""
    occurrences = Counter(name for group in sizes for name in set(classes.get(group, ())))
    # A class in fewer groups cannot be in every role.
    wanted = {name for name, count in occurrences.items() if count >= len(_SHARES)}
    for attempt in range(_TRIES):
        # By fold and attempt alone, so that the same groups are always divided alike.
        order = np.random.default_rng([fold, attempt]).permutation(sorted(sizes)).tolist()
        division = _greedy(order, sizes)
        if _tested(division) not in tested and _all_have(division, classes, wanted):
            return division
    condition = f", each with {', '.join(sorted(wanted))}" if wanted else ""
    raise ValueError(
        f"fold {fold + 1}: none of {_TRIES} ways to divide {len(sizes)} group(s) has train, val "
        f"and test groups{condition}, and test groups that no fold before has: ask for fewer "
        "folds, or register more groups"
    )


def _greedy(order: Sequence[str], sizes: Mapping[str, int]) -> dict[str, Role]:
    """Give each group to the role that is least full for its share; no role stays empty."""
    filled = dict.fromkeys(_SHARES, 0)
    division: dict[str, Role] = {}
    for index, group in enumerate(order):
        empty = [role for role, number in filled.items() if not number]
        # As many groups as empty roles are left: each has to fill one.
        roles = empty if len(order) - index <= len(empty) else list(filled)
        size = sizes[group]
        role = min(roles, key=lambda r: ((filled[r] + size) / _SHARES[r], _SHARES[r], r))
        filled[role] += size
        division[group] = role
    return division


def _tested(division: Mapping[str, Role]) -> frozenset[str]:
    return frozenset(group for group, role in division.items() if role == "test")


def _all_have(
    division: Mapping[str, Role], classes: Mapping[str, Collection[str]], wanted: set[str]
) -> bool:
    """Tell whether every role has groups, and these have all ``wanted`` classes."""
    for role in _SHARES:
        groups = [group for group, its in division.items() if its == role]
        if not groups or not wanted <= {n for group in groups for n in classes.get(group, ())}:
            return False
    return True
