"""The class that each mask value becomes, and what is told of values and classes."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from models.data.description import Description
from models.data.intake.findings import Findings
from models.data.intake.mask_values import MaskValues
from models.data.readers.limits import ImageError


def meaning(**facts: Any) -> MaskValues:
    fields = {"class_names": ["background", "myelin", "axon"], "pixel_size_nm": 4.0}
    return MaskValues(Description(**(fields | facts)))


def settled(values: MaskValues) -> Findings:
    findings = Findings()
    values.settle(findings)
    return findings


def codes(findings: Findings) -> list[str]:
    return [note.code for note in findings.notes]


def test_values_are_ids_and_255_is_ignored() -> None:
    mask = np.array([[0, 1, 2], [9, 9, 0]], dtype=np.int32)
    values = meaning(ignore_value=9)
    found = values.ids(mask)
    np.testing.assert_array_equal(found, [[0, 1, 2], [255, 255, 0]])
    assert found.dtype == np.uint8
    findings = settled(values)
    assert codes(findings) == ["ignored_pixels"]
    assert "2 pixels" in findings.notes[0].message
    assert "33 %" in findings.notes[0].message


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32"])
def test_values_are_mapped_to_classes(dtype: str) -> None:
    mapping = {"0": "background", "127": "myelin", "255": "axon", "7": "ignore", "8": "axon"}
    values = meaning(mask_values=mapping)
    found = values.ids(np.array([[0, 127, 255, 7, 8]]).astype(dtype))
    np.testing.assert_array_equal(found, [[0, 1, 2, 255, 2]])
    assert settled(values).problems == []


def test_a_mapping_alone_says_what_is_ignored() -> None:
    mapping = {"1": "background", "2": "myelin", "3": "axon"}
    with pytest.raises(ImageError, match="255"):
        meaning(mask_values=mapping).ids(np.array([[1, 255]]))
    values = meaning(mask_values=mapping, ignore_value=0)
    np.testing.assert_array_equal(values.ids(np.array([[0, 3]])), [[255, 2]])


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"mask_values": {"0": "soma"}}, "soma"),
        ({"mask_values": {"0": "axon"}, "ignore_value": 0}, "ignore_value"),
        ({"mask_values": {}}, "at least 1"),
        ({"mask_values": {"a": "axon"}}, "integer"),
        ({"class_names": ["ignore", "axon"], "mask_values": {"0": "ignore"}}, "rename"),
        ({"ignore_value": 2}, "ignore_value 2"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(facts: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        meaning(**facts)


def test_values_without_a_meaning_are_counted_over_all_masks() -> None:
    values = meaning()
    for mask in ([[0, 127, 127]], [[255, 127, 0]]):
        with pytest.raises(ImageError, match=r"127 \("):
            values.ids(np.array(mask, np.uint8))
    (problem,) = settled(values).problems
    assert problem.where == "mask_values"
    assert "0 (2 px), 127 (3 px), 255 (1 px)" in problem.message
    assert '{"0": "background", "127": "myelin", "255": "axon"}' in problem.message


def test_a_suggestion_leaves_open_what_cannot_be_guessed() -> None:
    values = meaning()
    with pytest.raises(ImageError):
        values.ids(np.array([[0, 5]]))
    assert '{"0": "background", "5": "?"}' in settled(values).problems[0].message
    with_ignored = meaning()
    with pytest.raises(ImageError):
        with_ignored.ids(np.array([[1, 2, 3, 255]]))
    said = settled(with_ignored).problems[0].message
    assert '{"1": "background", "2": "myelin", "3": "axon", "255": "ignore"}' in said


def test_masks_of_many_values_are_no_masks_of_classes() -> None:
    values = meaning()
    with pytest.raises(ImageError, match=r", \.\.\."):
        values.ids(np.arange(5000).reshape(50, 100))
    assert "1004 values" in settled(values).problems[0].message


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.array([[0.5, 1]]), "0.5"),
        (np.array([[np.nan, 1]]), "nan"),
        (np.array([[1e30, 1]]), "1e"),
        (np.array([[1j, 1]]), "complex128"),
    ],
)
def test_masks_of_other_numbers_are_refused(mask: np.ndarray, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        meaning().ids(mask)


TWO = {"class_names": ["background", "mitochondrion"]}


def test_0_and_255_without_1_are_two_classes() -> None:
    values = meaning(**TWO)
    values.ids(np.array([[0, 0, 255]], np.uint8))
    assert values.foreground_is_255
    findings = settled(values)
    assert codes(findings) == ["foreground_255"]
    assert "1 pixels" in findings.notes[0].message


@pytest.mark.parametrize(
    ("facts", "mask"),
    [
        (TWO, [0, 1, 255]),
        (TWO, [255, 255, 255]),
        (TWO, [0, 0, 1]),
        (TWO | {"ignore_value": 255}, [0, 0, 255]),
        (TWO | {"mask_values": {"0": "background", "255": "ignore"}}, [0, 0, 255]),
        ({}, [0, 0, 255]),
    ],
)
def test_255_is_ignored_otherwise(facts: dict[str, Any], mask: list[int]) -> None:
    values = meaning(**facts)
    values.ids(np.array([mask], np.uint8))
    assert not values.foreground_is_255
    assert ("ignored_pixels" in codes(settled(values))) is (255 in mask)


def test_0_and_1_and_255_are_told_to_be_ambiguous() -> None:
    values = meaning(**TWO)
    values.ids(np.array([[0, 1, 255]], np.uint8))
    assert '"255": "ignore"' in settled(values).notes[0].message
    plain = meaning(**TWO | {"ignore_value": 255})
    plain.ids(np.array([[0, 1, 255]], np.uint8))
    assert "mask_values" not in settled(plain).notes[0].message


def test_classes_without_a_pixel_and_an_unused_value_are_told() -> None:
    values = meaning(ignore_value=200)
    values.ids(np.array([[1, 1]]))
    findings = settled(values)
    assert codes(findings) == ["ignore_value_unused", "one_class", "empty_class", "empty_class"]
    assert [note.where for note in findings.notes[2:]] == ["class_names"] * 2
    assert settled(meaning()).notes == []
