"""Groups and splits of a new dataset: lost sections are unused, and no pixels have two roles."""

from typing import Any

import pytest

from models.data.description import Description
from models.data.intake.findings import Findings
from models.data.intake.lost_sections import LostSections
from models.data.intake.roles import with_groups, with_roles
from models.data.sections import Section


def roles(
    lost: LostSections, num: int = 12, *, has_mask: bool = True, **facts: Any
) -> tuple[str, Findings]:
    """Return a letter for each section's split (T is test), and what was found."""
    fields = {"class_names": ["background", "organelle"], "pixel_size_nm": 4.0}
    description, findings = Description(**(fields | facts)), Findings()
    sections = [Section(n, f"{n}", "train", 8, 8, has_mask) for n in range(num)]
    grouped = with_groups(sections, description, findings)
    found = with_roles(grouped, description, lost, findings)
    return "".join(
        section.split[0] if section.split != "test" else "T" for section in found
    ), findings


def seen(num: int, **facts: Any) -> LostSections:
    return LostSections(**facts, _num_seen=num)


def test_default_splits_are_of_the_sections_that_can_be_used() -> None:
    assert roles(seen(12))[0] == "ttttttuvvuTT"
    found, findings = roles(seen(12, blank={2, 6}))
    # Of ten, four train, two validate and two test, with one between.
    assert found == "ttuttuuvvuTT"
    assert [note.code for note in findings.notes] == ["blank_sections"]
    assert "2, 6" in findings.notes[0].message


def test_copies_of_the_section_before_are_unused() -> None:
    found, findings = roles(seen(4, copies={1: 0, 2: 0}), 4, has_mask=False)
    assert found == "tuut"
    assert [note.code for note in findings.notes] == ["repeated_sections"]


@pytest.mark.parametrize(
    ("splits", "found"),
    [
        ({"train": ["0", "2"], "val": ["1"]}, "tvu"),
        ({"train": ["0", "1"]}, "ttu"),
    ],
)
def test_copies_with_one_role_are_used_once(splits: dict[str, list[str]], found: str) -> None:
    assert roles(seen(3, copies={2: 0}), 3, splits=splits)[0] == found


def test_copies_with_two_roles_are_a_problem() -> None:
    splits = {"train": ["0", "1"], "test": ["2"]}
    _, findings = roles(seen(3, copies={2: 0}), 3, splits=splits)
    (problem,) = findings.problems
    assert problem.where == "2"
    assert "same pixels as 0" in problem.message


def test_named_splits_without_training_are_told() -> None:
    _, findings = roles(seen(3), 3, splits={"val": ["0"], "test": ["1"]})
    assert [note.code for note in findings.notes] == ["no_training_sections"]
    _, findings = roles(seen(3), 3, splits={"train": ["0"]})
    assert findings.notes == []


@pytest.mark.parametrize(
    ("facts", "where"),
    [({"splits": {"train": ["9"]}}, "splits"), ({"groups": {"g": ["0"]}}, "groups")],
)
def test_names_of_no_section_are_a_problem(facts: dict[str, Any], where: str) -> None:
    _, findings = roles(seen(3), 3, **facts)
    assert [problem.where for problem in findings.problems] == [where]
