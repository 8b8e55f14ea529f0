"""Each mask finds the image that it belongs to, or is named."""

from collections.abc import Sequence

import numpy as np
import pytest

from models.data.intake.findings import Findings
from models.data.intake.inputs import InputArray
from models.data.intake.pairing import paired


def pairs(
    images: Sequence[str], masks: Sequence[str]
) -> tuple[dict[str, str | None], dict[str, str], list[str]]:
    """Return the mask of each image, the problems, and the codes of the notes."""
    findings = Findings()
    inputs = ([InputArray(name, np.zeros((1, 1))) for name in some] for some in (images, masks))
    found = paired(*inputs, findings)
    problems = {problem.where: problem.message for problem in findings.problems}
    names = {pair.image.name: None if pair.mask is None else pair.mask.name for pair in found}
    return names, problems, [note.code for note in findings.notes]


@pytest.mark.parametrize(
    ("images", "masks", "wanted"),
    [
        (["a", "b"], ["b", "a"], {"a": "a", "b": "b"}),
        (["a", "b"], ["b"], {"a": None, "b": "b"}),
        (["e\u0301"], ["\u00e9"], {"e\u0301": "\u00e9"}),
    ],
)
def test_equal_names_are_pairs(
    images: list[str], masks: list[str], wanted: dict[str, str | None]
) -> None:
    assert pairs(images, masks) == (wanted, {}, [])


@pytest.mark.parametrize(
    ("images", "masks", "wanted"),
    [
        (["a", "b"], ["a_mask", "b_mask"], {"a": "a_mask", "b": "b_mask"}),
        (["a_raw", "b"], ["a_gt", "b"], {"a_raw": "a_gt", "b": "b"}),
        (["a_raw"], ["a"], {"a_raw": "a"}),
        # A mask of exactly this name goes first.
        (["a", "a_seg"], ["a_seg", "a_labels"], {"a": "a_labels", "a_seg": "a_seg"}),
    ],
)
def test_usual_endings_are_left_out(
    images: list[str], masks: list[str], wanted: dict[str, str | None]
) -> None:
    assert pairs(images, masks) == (wanted, {}, ["paired_by_ending"])


@pytest.mark.parametrize(
    ("images", "masks", "wrong"),
    [
        (["a"], ["b"], {"b": "no image"}),
        (["a"], ["a_mask", "a_seg"], {"a_mask": "2 masks", "a_seg": "2 masks"}),
        (["a_raw", "a_em"], ["a_mask"], {"a_mask": "2 images"}),
        (["a", "b"], ["b", "b_mask"], {"b_mask": "no image"}),
        (["a", "a.png"], [], {"a.png": "another image, a,"}),
        (["a"], ["a", "a.tif"], {"a.tif": "another mask, a,"}),
        (["\u00e9", "e\u0301"], [], {"e\u0301": "another image"}),
    ],
)
def test_what_pairs_with_none_or_several_is_named(
    images: list[str], masks: list[str], wrong: dict[str, str]
) -> None:
    _, problems, _ = pairs(images, masks)
    assert problems.keys() == wrong.keys()
    assert all(words in problems[where] for where, words in wrong.items())
