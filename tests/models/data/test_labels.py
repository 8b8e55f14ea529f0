"""Image-level labels: words and codes, and the rule that makes labels of masks."""

import numpy as np
import pytest

from models.data.labels import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    class_pixels,
    known_labels,
    label_codes,
    label_state,
    labels_in_words,
    labels_of_mask,
    present_classes,
)

U, A, P = UNKNOWN, ABSENT, PRESENT


def test_words_become_codes_in_the_order_of_the_classes() -> None:
    labels = {"b": "present", "a": "absent", "c": "unknown"}
    assert label_codes(labels, ["a", "b", "c", "d"]) == (A, P, U, U)
    assert known_labels(labels) == {"b": "present", "a": "absent"}
    assert label_codes({}, ["a"]) == (U,)


def test_a_word_that_is_no_label_is_refused() -> None:
    with pytest.raises(ValueError, match="perhaps"):
        label_codes({"a": "perhaps"}, ["a"])


def test_the_words_of_a_table() -> None:
    words = {"present": "1 Yes TRUE 1.0 present", "absent": "0 no false 0.0 Absent", "unknown": "?"}
    for state, spellings in words.items():
        assert {label_state(text) for text in spellings.split()} == {state}
    assert label_state(" ") == "unknown"
    for text in ("2", "maybe", "-1", "presents"):
        with pytest.raises(ValueError, match=text):
            label_state(text)


def test_pixels_without_a_class_do_not_count() -> None:
    mask = np.array([[0, 0, 2], [255, 2, 2]], np.uint8)
    assert class_pixels(mask, 4).tolist() == [2, 0, 3, 0]
    assert class_pixels(mask[:0], 4).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("min_pixels", "present"),
    [(1, [True, True, False]), (2, [True, False, False]), ([6, 1, 1], [False, True, False])],
)
def test_a_class_is_present_from_a_number_of_pixels_on(
    min_pixels: int | list[int], present: list[bool]
) -> None:
    assert present_classes([5, 1, 0], min_pixels).tolist() == present
    assert present_classes(np.array([[5, 1, 0], [0, 0, 0]]), min_pixels).tolist() == [
        present,
        [False] * 3,
    ]


@pytest.mark.parametrize(
    ("counts", "labels"), [([5, 0], (P, A)), ([0, 1], (A, P)), ([0, 0], (U, U))]
)
def test_labels_that_a_mask_gives(counts: list[int], labels: tuple[int, ...]) -> None:
    assert labels_of_mask(counts) == labels


@pytest.mark.parametrize(
    ("counts", "labels"), [([5, 0, 0], (P, A, U)), ([5, 0, 1], (P, A, P)), ([0, 0, 0], (U, U, U))]
)
def test_a_class_that_was_not_annotated_is_never_absent(
    counts: list[int], labels: tuple[int, ...]
) -> None:
    assert labels_of_mask(counts, unannotated=(2,)) == labels


def test_labels_of_codes_leave_out_what_is_unknown() -> None:
    assert labels_in_words((P, U, A), ["a", "b", "c"]) == {"a": "present", "c": "absent"}
