"""Reads JSON that a client sent, at a cost that its size bounds; imports no FastAPI."""

import json
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from app.errors import Invalid, ProblemItem, TooLarge, invalid_fields

Read = TypeVar("Read")

MOST_VALUES = 1_000_000
"""The most values in the JSON of a request."""

_MOST_NAMES = 1000
"""The most names in one object of a request: each unknown one makes an error."""


def read_json(kind: TypeAdapter[Read], body: bytes, most_values: int = MOST_VALUES) -> Read:
    """Return what a body holds, validated.

    Raises:
        TooLarge: it holds more values than a request needs.
        Invalid: it is no JSON, or names each field that is wrong.
    """
    return validated(kind, parsed(body, most_values))


def parsed(body: bytes, most_values: int = MOST_VALUES) -> object:
    """Return the values in a body, of which nothing is known but that there are not too many."""
    # A value of two bytes, such as {}, takes a hundred bytes of memory, so they are counted first.
    if sum(map(body.count, (b",", b"[", b"{"))) > most_values:
        raise TooLarge(
            f"the request's JSON holds more than {most_values} values: send it in smaller parts"
        )
    try:
        # One call per object also lets other threads run, which the parser alone would not.
        return json.loads(body, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        message = "Invalid JSON: its lists and objects are nested too deeply"
    except ValueError as error:
        message = f"Invalid JSON: {error}"
    raise Invalid(message, [ProblemItem(where="body", message=message)])


def validated(kind: TypeAdapter[Read], values: object) -> Read:
    """Return parsed values as the type that they are meant to be; Invalid if they are not."""
    try:
        return kind.validate_python(values)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise invalid_fields(errors, "body") from error


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(pairs) > _MOST_NAMES:
        raise ValueError(f"an object holds more than {_MOST_NAMES} names")
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object holds the name {twice[:100]!r} twice")
    return values


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")
