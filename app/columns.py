"""Types of columns that hold JSON."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import JSON, Dialect, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB

from models.data.sections import Section

Json = JSON().with_variant(JSONB(), "postgresql")

_STORED = {field.name for field in fields(Section)} - {"index"}


class Sections(TypeDecorator[tuple[Section, ...]]):
    """The sections of a dataset, stored as a list of objects in their order.

    Fields that this version does not know are passed over.
    """

    impl = Json
    cache_ok = True

    def process_bind_param(
        self, value: Sequence[Section] | None, _dialect: Dialect
    ) -> list[dict[str, Any]] | None:
        if value is None:
            return None
        return [{k: v for k, v in asdict(section).items() if k != "index"} for section in value]

    def process_result_value(self, value: Any, _dialect: Dialect) -> tuple[Section, ...] | None:
        if value is None:
            return None
        return tuple(
            Section(index=index, **{name: stored[name] for name in _STORED & stored.keys()})
            for index, stored in enumerate(value)
        )
