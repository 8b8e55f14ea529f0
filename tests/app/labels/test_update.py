"""Labels from JSON, of which only some are validated at a time."""

import json
import tracemalloc
from typing import Any

import pytest

from app.errors import Invalid, ServiceError, TooLarge
from app.labels.schemas import MOST_LABELS, ImageLabels
from app.labels.update import read_update
from models.data.labels import LabelState


def body(entries: Any, **others: Any) -> bytes:
    return json.dumps({"labels": entries, **others}).encode()


def entry(n: int, state: str = "present") -> dict[str, Any]:
    return {"image": n, "classes": {"nucleus": state}}


def places(data: bytes) -> list[str]:
    with pytest.raises(Invalid) as refused:
        read_update(data)
    return [item.where for item in refused.value.errors]


def test_many_entries_are_read_as_they_are() -> None:
    read = read_update(body([entry(n) for n in range(2345)]))
    expected = ImageLabels(image=2344, classes={"nucleus": LabelState.PRESENT})
    assert [one.image for one in read.labels] == list(range(2345))
    assert read.labels[-1] == expected


@pytest.mark.parametrize("number", [3, 3000])
def test_wrong_entries_are_named_by_their_number_in_the_whole(number: int) -> None:
    entries = [entry(n) for n in range(number)]
    entries[number - 1] |= {"n": 1}
    entries[number - 2] = entry(1, "maybe")
    assert places(body(entries)) == [
        f"body.labels.{number - 2}.classes.nucleus",
        f"body.labels.{number - 1}.n",
    ]
    assert places(body(entries, colour="red"))[-1] == "body.colour"


def test_what_is_no_list_of_entries() -> None:
    for wrong in (body(3), body(None)):
        assert places(wrong) == ["body.labels"]
    for nothing in (body([]), b"{}"):
        assert places(nothing) == ["body"]
    assert places(b"[]") == ["body"]
    assert places(b"[") == ["body"]
    assert places(body([{}] * (MOST_LABELS + 1))) == ["body.labels"]


@pytest.mark.heavy
@pytest.mark.parametrize("wrong", ["{}", '{"image":-1,"classes":{}}', "1", '{"image":0,"a":{}}'])
def test_very_many_wrong_entries_cost_little(wrong: str) -> None:
    data = b'{"labels":[%s]}' % b",".join([wrong.encode()] * 200_000)
    tracemalloc.start()
    try:
        with pytest.raises(ServiceError) as refused:
            read_update(data)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(refused.value.errors) == 100
    assert most < 120 << 20


def test_more_values_than_labels_need_are_not_read() -> None:
    with pytest.raises(TooLarge):
        read_update(b'{"labels":[%s]}' % b",".join([b"{}"] * (5 * MOST_LABELS + 1)))
