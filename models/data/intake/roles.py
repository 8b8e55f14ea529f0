"""Give each section of a new dataset its group and its split, as described or by default."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from models.data.description import Description
from models.data.intake.findings import Findings, listed
from models.data.intake.lost_sections import LostSections
from models.data.sections import Section, Split
from models.data.splits import (
    block_splits,
    group_splits,
    named_groups,
    named_splits,
    named_unannotated,
)


def with_groups(
    sections: Sequence[Section], description: Description, findings: Findings
) -> list[Section]:
    """Return the sections in the groups that the description names, if any."""
    if description.groups is None:
        return list(sections)
    try:
        groups = named_groups([section.name for section in sections], description.groups)
    except ValueError as error:
        findings.problem("groups", str(error))
        return list(sections)
    return [replace(s, group=group) for s, group in zip(sections, groups, strict=True)]


def with_unannotated(
    sections: Sequence[Section], description: Description, findings: Findings
) -> list[Section]:
    """Return the sections with the classes of which their masks say nothing, if any are named."""
    if description.unannotated is None:
        return list(sections)
    names = [section.name for section in sections]
    try:
        found = named_unannotated(names, description.class_names, description.unannotated)
    except ValueError as error:
        findings.problem("unannotated", str(error))
        return list(sections)
    return [replace(s, unannotated=ids) for s, ids in zip(sections, found, strict=True)]


def with_roles(
    sections: Sequence[Section], description: Description, lost: LostSections, findings: Findings
) -> list[Section]:
    """Return the sections in the splits that the description names, or else in default ones.

    Lost sections are unused. A section whose pixels another has is unused too if both have the same
    role, and a problem if they have two: a network would be scored on what it was trained on.
    """
    names = [section.name for section in sections]
    unusable = lost.unusable
    try:
        splits = _wanted(sections, description, unusable)
    except ValueError as error:
        findings.problem("splits", str(error))
        return list(sections)
    repeated = unusable - lost.blank
    for index in unusable:
        splits[index] = "unused"
    for index, first in lost.other_copies().items():
        if "unused" in (splits[index], splits[first]):
            continue
        if splits[index] != splits[first]:
            findings.problem(
                names[index],
                f"has the same pixels as {names[first]}, but one would be in {splits[first]} and "
                f"the other in {splits[index]}: give each image once, or name their splits",
            )
        splits[index] = "unused"
        repeated.add(index)
    _note_lost(names, unusable & lost.blank, repeated, findings)
    if description.splits is not None and "train" not in splits:
        findings.note(
            "splits",
            "no_training_sections",
            "No section is in train, so no job can train on this dataset; it can only be scored.",
        )
    return [replace(s, split=split) for s, split in zip(sections, splits, strict=True)]


def _wanted(
    sections: Sequence[Section], description: Description, unusable: Collection[int]
) -> list[Split]:
    """Return the named splits, or the default ones of the sections that can be used."""
    names = [section.name for section in sections]
    if description.splits is not None:
        return named_splits(names, description.splits)
    if not any(section.has_mask for section in sections):
        return ["train"] * len(names)
    groups = [section.group for section in sections if section.group]
    if groups:
        return group_splits(names, groups)
    usable = [index for index in range(len(names)) if index not in unusable]
    splits: list[Split] = ["unused"] * len(names)
    # Over usable sections alone: between two roles one of them is left out, not only a lost one.
    for index, split in zip(usable, block_splits(len(usable)), strict=True):
        splits[index] = split
    return splits


def _note_lost(
    names: Sequence[str], blank: Collection[int], repeated: Collection[int], findings: Findings
) -> None:
    if blank:
        findings.note(
            "sections",
            "blank_sections",
            f"{len(blank)} sections have one grey value throughout and are unused: "
            f"{listed([names[index] for index in sorted(blank)])}.",
        )
    if repeated:
        findings.note(
            "sections",
            "repeated_sections",
            f"{len(repeated)} sections have the same pixels as another and are unused: "
            f"{listed([names[index] for index in sorted(repeated)])}.",
        )
