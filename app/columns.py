"""The types of columns that hold JSON, packed or not.

Stored JSON is read so that no bad row makes a list fail.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from pydantic import JsonValue
from sqlalchemy import JSON, Dialect, LargeBinary, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB

from models.data.intake.findings import Note
from models.data.intake.grey_values import Histogram
from models.data.sections import Section

Json = JSON().with_variant(JSONB(), "postgresql")
JsonOrNone = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A value that may be missing: then the column holds NULL, which an index can leave out."""

_STORED = {field.name for field in fields(Section)} - {"index"}
_NOTE = tuple(field.name for field in fields(Note))


class Names(TypeDecorator[tuple[str, ...]]):
    """Stores ordered names as a list; anything else that was stored reads as no names."""

    impl = Json
    cache_ok = True

    def process_bind_param(
        self, value: Sequence[str] | None, _dialect: Dialect
    ) -> list[str] | None:
        return None if value is None else list(value)

    def process_result_value(self, value: JsonValue, _dialect: Dialect) -> tuple[str, ...]:
        return tuple(str(name) for name in stored_list(value))


class Sections(TypeDecorator[tuple[Section, ...]]):
    """Stores the sections of a dataset as a list of objects, in their order.

    Fields that this version does not know are ignored.
    """

    impl = Json
    cache_ok = True

    def process_bind_param(
        self, value: Sequence[Section] | None, _dialect: Dialect
    ) -> list[dict[str, Any]] | None:
        if value is None:
            return None
        return [
            {k: v for k, v in asdict(section).items() if k != "index" and v is not None}
            for section in value
        ]

    def process_result_value(self, value: Any, _dialect: Dialect) -> tuple[Section, ...] | None:
        if value is None:
            return None
        return tuple(
            Section(index, **{name: _hashable(stored[name]) for name in _STORED & stored.keys()})
            for index, stored in enumerate(value)
        )


class Notes(TypeDecorator[tuple[Note, ...]]):
    """Stores notes as a list of objects; an entry that is no note is left out when it is read."""

    impl = Json
    cache_ok = True

    def process_bind_param(
        self, value: Sequence[Note] | None, _dialect: Dialect
    ) -> list[dict[str, Any]] | None:
        return None if value is None else [asdict(note) for note in value]

    def process_result_value(self, value: JsonValue, _dialect: Dialect) -> tuple[Note, ...]:
        entries = [stored_object(entry) for entry in stored_list(value)]
        return tuple(
            Note(*(str(entry[name]) for name in _NOTE))
            for entry in entries
            if entry.keys() >= set(_NOTE)
        )


class HistogramType(TypeDecorator[Histogram]):
    """Stores a histogram as packed JSON."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Histogram | None, _dialect: Dialect) -> bytes | None:
        return None if value is None else zlib.compress(json.dumps(asdict(value)).encode())

    def process_result_value(self, value: bytes | None, _dialect: Dialect) -> Histogram | None:
        if value is None:
            return None
        stored = json.loads(zlib.decompress(value))
        return Histogram(stored["low"], stored["step"], tuple(stored["counts"]))


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def stored_list(value: JsonValue) -> list[JsonValue]:
    """Return a stored list; an empty one if something else was stored."""
    return value if isinstance(value, list) else []


def stored_object(value: JsonValue) -> dict[str, JsonValue]:
    """Return a stored object; an empty one if something else was stored."""
    return value if isinstance(value, dict) else {}
