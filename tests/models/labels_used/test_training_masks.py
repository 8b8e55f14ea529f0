"""The masks that training may use: which sections, and which pixels."""

from typing import Any

import numpy as np
import pytest

from models.config.rounds import RoundsConfig
from models.data.domain import IGNORE
from models.data.sections import Section, Split
from models.labels_used.training_masks import first_rows, masked_sections, with_mask

I = IGNORE  # noqa: E741


def section(index: int, split: Split = "train", *, masked: bool = True, **more: Any) -> Section:
    return Section(index, f"s{index}", split, 8, 8, masked, **more)


SECTIONS = [section(n, masked=n != 3) for n in range(10)] + [section(10, "test")]
"""Nine training sections with a mask, one without, and a test section."""


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        (0, []),
        (1, [5]),
        (2, [2, 7]),
        (9, [0, 1, 2, 4, 5, 6, 7, 8, 9]),
        (("s7", "s1"), [1, 7]),
        ((), []),
    ],
)
def test_sections_are_spread_evenly_or_named(wanted: Any, indices: list[int]) -> None:
    assert [each.index for each in masked_sections(SECTIONS, wanted)] == indices


@pytest.mark.parametrize(
    ("wanted", "says"),
    [(10, "10 masked.*9 training"), (("s3",), "'s3'"), (("s10",), "'s10'"), (("x",), "s0, s1")],
)
def test_masks_that_are_not_there_are_refused(wanted: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        masked_sections(SECTIONS, wanted)


@pytest.mark.parametrize("wrong", [-1, 1.5, "s1", [""], [1], None])
def test_what_is_neither_a_number_nor_names_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="masked_sections"):
        RoundsConfig.model_validate({"masked_sections": wrong})


def test_a_mask_prevails_where_it_tells_something() -> None:
    labels = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2]], np.uint8)
    mask = np.array([[1, 1, 1], [I, 0, 0], [1, 1, 1]], np.uint8)
    # Class 2 was not annotated: where the label says so, the mask cannot deny it.
    made = with_mask(labels, mask, section(0, unannotated=(2,)), slice(0, 2))
    assert made.tolist() == [[1, 1, 2], [0, 0, 2], [0, 1, 2]]
    assert labels[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("height", "share", "first"), [(10, 1.0, 10), (10, 0.5, 5), (3, 0.1, 0)])
def test_the_upper_rows_train(height: int, share: float, first: int) -> None:
    assert first_rows(height, share) == slice(0, first)
