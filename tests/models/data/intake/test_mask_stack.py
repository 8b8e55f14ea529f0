"""The masks of a file, in step with the sections and at their size."""

from typing import Any

import numpy as np
import pytest

from models.data.description import Description
from models.data.intake.findings import Findings
from models.data.intake.mask_stack import MaskStack, at_size
from models.data.intake.mask_values import MaskValues
from models.data.readers.limits import ImageError

CELLS: dict[str, Any] = {"class_names": ["background", "organelle"], "pixel_size_nm": 4.0}


def test_a_mask_is_brought_to_the_size_of_its_image_by_a_whole_factor() -> None:
    mask = np.array([[0, 1, 2], [3, 4, 5]])
    double = at_size(mask, (4, 6))
    np.testing.assert_array_equal(double[1], [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(at_size(double, (2, 3)), mask)
    np.testing.assert_array_equal(at_size(at_size(mask, (6, 9)), (2, 3)), mask)


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (4, 9), (1, 3), (5, 7)])
def test_a_mask_of_no_whole_factor_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="2 x 3 px"):
        at_size(np.zeros((2, 3)), shape)


def stacked(masks: list[np.ndarray]) -> tuple[MaskStack, Findings]:
    findings = Findings()
    values = MaskValues(Description(**CELLS))
    return MaskStack("m", iter(masks), values, findings), findings


def test_too_few_and_too_many_masks_are_named() -> None:
    mask = np.zeros((2, 3), np.uint8)
    masks, findings = stacked([mask, mask])
    assert masks.next_ids("a/0000", (2, 3)) is not None
    masks.check_end()
    assert "more masks" in findings.problems[0].message
    masks, findings = stacked([])
    assert masks.next_ids("a", (2, 3)) is None
    masks.check_end()
    assert [problem.where for problem in findings.problems] == ["m"]
    assert "fewer" in findings.problems[0].message


def test_values_without_a_meaning_are_named_once_and_the_rest_is_read() -> None:
    masks, findings = stacked([np.full((2, 3), 7), np.full((2, 3), 8), np.ones((4, 6))])
    shapes = [masks.next_ids(f"a/{n:04d}", (2, 3)) is None for n in range(3)]
    assert shapes == [True, True, False]
    assert masks.scaled
    (problem,) = findings.problems
    assert "a/0000" in problem.message
    masks.check_end()
    assert len(findings.problems) == 1


def test_a_file_that_failed_gives_no_mask_and_no_second_problem() -> None:
    findings = Findings()
    masks = MaskStack.failed("m", MaskValues(Description(**CELLS)), findings)
    assert masks.next_ids("a", (2, 3)) is None
    masks.check_end()
    assert findings.problems == []
