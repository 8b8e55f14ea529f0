"""JSON of requests: what is read, and what reading costs at most."""

import tracemalloc
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.errors import Invalid, ServiceError, TooLarge
from app.http.json_body import MOST_VALUES, parsed, read_json

pytestmark = pytest.mark.heavy


class Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=5)
    sizes: list[Annotated[int, Field(ge=0)]] = Field([], max_length=3)


SENT = TypeAdapter(Sent)


def test_values_are_read_as_they_are() -> None:
    body = '{"a": [1, -2.5, true, null, "\\u00e9\u00e9, [{"], "b": {}}'.encode()
    assert parsed(body) == {"a": [1, -2.5, True, None, "\u00e9\u00e9, [{"], "b": {}}
    assert read_json(SENT, b'{"name": "x", "sizes": [1, "2"]}') == Sent(name="x", sizes=[1, 2])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1,]",
        b"[NaN]",
        b"[-Infinity]",
        b"\xff\xfe{",
        b'{"a": 1, "a": 2}',
        b'{"b": [{"a": 1, "c": 2, "a": 1}]}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b"{%s}" % b",".join(b'"%d": 1' % n for n in range(1001)),
    ],
    ids=lambda body: str(body[:20]),
)
def test_what_is_no_plain_json_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        parsed(body)
    (item,) = refused.value.errors
    assert item.where == "body"
    assert item.message.startswith("Invalid JSON: ")


def test_a_name_that_comes_twice_is_told() -> None:
    with pytest.raises(Invalid, match="'size'"):
        parsed(b'{"name": 1, "size": 1, "size": 2}')


def test_wrong_fields_are_named() -> None:
    with pytest.raises(Invalid) as refused:
        read_json(SENT, b'{"name": "long name", "sizes": [1, -1], "colour": 1}')
    assert [item.where for item in refused.value.errors] == [
        "body.name",
        "body.sizes.1",
        "body.colour",
    ]
    with pytest.raises(Invalid) as refused:
        read_json(SENT, b'{"name": "x", "sizes": [1, 2, 3, 4]}')
    assert [item.where for item in refused.value.errors] == ["body.sizes"]


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"{}," * 2_000_000 + b"{}]",
        b"[" + b"1," * 4_000_000 + b"1]",
        b"[" + b"[[[[[[[]]]]]]]," * 500_000 + b"1]",
        b'{"name": "x", "sizes": [' + b'"",' * 2_000_000 + b"1]}",
        b'{"name": "' + b"x" * 8_000_000 + b'"}',
        b'{"name": "' + b"\\u0041" * 1_300_000 + b'"}',
        b'{"name": "x", ' + b",".join(b'"%07d":1' % n for n in range(500_000)) + b"}",
        b'{"name": "x", "sizes": [' + b"{}," * 400_000 + b"1]}",
        b'{"name": "x", "sizes": [' + b'{"a":1},' * 400_000 + b"1]}",
    ],
    ids=lambda body: str(body[:30] + body[-10:]),
)
def test_eight_megabytes_of_anything_cost_little(body: bytes) -> None:
    """A refusal takes at most some times the memory of the body, and is small itself."""
    tracemalloc.start()
    try:
        with pytest.raises(ServiceError) as refused:
            read_json(SENT, body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 150 << 20
    told = refused.value
    assert len(told.detail) + sum(len(e.where) + len(e.message) for e in told.errors) < 10_000


def test_the_number_of_values_has_a_limit() -> None:
    fits = b"[" + b"1," * (MOST_VALUES - 1) + b"1]"
    assert len(parsed(fits)) == MOST_VALUES  # type: ignore[arg-type]
    with pytest.raises(TooLarge, match=str(MOST_VALUES)):
        parsed(fits[:-1] + b",1]")
    with pytest.raises(TooLarge, match="at most|more than 3"):
        parsed(b"[1, 2, {}]", most_values=3)
    assert parsed(b"[1, 2]", most_values=3) == [1, 2]
