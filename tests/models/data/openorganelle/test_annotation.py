"""The notes of annotators: what was annotated, and what the values of an array mean."""

import numpy as np
import pytest
from pydantic import ValidationError

from models.data.openorganelle.annotation import (
    Encoding,
    annotated_structures,
    counted_absent,
    encoding,
)
from models.data.openorganelle.classes import load_classes

PAPER = load_classes("paper")
U8, U16 = np.dtype("uint8"), np.dtype("uint16")


def noted(**fields: object) -> dict[str, object]:
    return {"cellmap": {"annotation": fields}, "multiscales": []}


def typed(kind: str, **values: int) -> dict[str, object]:
    return {"type": f"{kind}_segmentation", "encoding": values}


def test_values_mean_what_the_schema_says_unless_noted_otherwise() -> None:
    assert encoding({}, {}, U8) == Encoding(0, 1, 255)
    other = noted(annotation_type=typed("semantic", absent=7, present=8, unknown=0))
    assert encoding(other, {}, U8) == Encoding(7, 8, 0)
    assert encoding({}, other, U8) == Encoding(7, 8, 0)
    assert encoding(noted(annotation_type=typed("semantic", unknown=9)), other, U8).unknown == 0


def test_instances_are_all_values_but_two() -> None:
    instances = noted(annotation_type=typed("instance", absent=0, unknown=255))
    found = encoding(instances, {}, U8).read(np.array([0, 1, 2, 254, 255]))
    assert found.present.tolist() == [False, True, True, True, False]
    assert found.unknown.tolist() == [False, False, False, False, True]


def test_instance_255_of_a_wide_array_is_an_instance_unless_unknown_voxels_were_counted() -> None:
    instances = noted(annotation_type=typed("instance", absent=0, unknown=255))
    assert encoding(instances, {}, U16) == Encoding(0, None, None)
    none = noted(complement_counts={"absent": 5, "unknown": 0})
    some = noted(complement_counts={"absent": 5, "unknown": 2})
    assert encoding(instances, none, U16).read(np.array([255, 300])).present.all()
    assert encoding(instances, some, U16).read(np.array([255, 300])).present.tolist() == [
        False, True
    ]  # fmt: skip


def test_a_value_without_meaning_is_unknown() -> None:
    found = Encoding().read(np.array([0, 1, 2, 255]))
    assert found.present.tolist() == [False, True, False, False]
    assert found.unknown.tolist() == [False, False, True, True]


def test_absent_voxels_may_have_been_counted() -> None:
    assert counted_absent({}, noted(complement_counts={"absent": 8, "unknown": 1})) == 8
    assert counted_absent(noted(complement_counts={"absent": 7}), {}) == 7
    assert counted_absent({}, noted(complement_counts={"unknown": 8})) is None
    assert counted_absent({}, {}) is None


def test_a_crop_tells_what_was_annotated() -> None:
    crop = noted(class_names=["ecs", "pm", "er"], version="0.1.1")
    assert annotated_structures(crop, {}, PAPER) == {"ecs", "pm", "er"}
    assert annotated_structures({}, {}, PAPER) is None


def test_older_crops_tell_it_id_by_id() -> None:
    labels = [
        {"value": 3, "name": {"short": "m"}, "annotationState": state, "count": None}
        | {"value": value}
        for value, state in (
            (3, {"present": True, "annotated": "dense"}),
            (16, {"present": True, "annotated": "empty"}),  # there, but nobody drew it
            (35, {"present": True, "annotated": "sparse"}),
            (30, {"present": False, "annotated": "dense"}),
            (999, {"present": True, "annotated": "dense"}),
        )
    ]
    assert annotated_structures({}, {"labels": labels}, PAPER) == {"mito_mem", "mt_out"}
    assert annotated_structures(noted(class_names=[]), {"labels": labels}, PAPER) == frozenset()


@pytest.mark.parametrize(
    "attributes",
    [
        {"cellmap": 3},
        noted(class_names="mito"),
        noted(annotation_type={"type": "poem"}),
        noted(annotation_type=typed("semantic") | {"encoding": {"absent": "none"}}),
        {"labels": [{"value": 3}]},
    ],
)
def test_notes_of_another_form_are_refused(attributes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        encoding(attributes, {}, U8)
