"""Divides long lists into pages; a cursor tells where the next page begins."""

import base64
import json
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.errors import Invalid, ProblemItem

Item = TypeVar("Item")
Row = TypeVar("Row")

LARGEST_NUMBER = 2**31 - 1
"""The largest number that an integer column holds."""


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    # Pydantic gives a generic class's docstring to none of its schemas.
    model_config = ConfigDict(json_schema_extra={"description": "One page of a list."})

    items: list[Item] = Field(description="The items of this page.")
    next: str | None = Field(
        None, description="The `cursor` to ask for the next page with; none on the last page."
    )


def newest_first(
    session: Session, query: Select[Row], limit: int, cursor: str | None
) -> tuple[list[Row], str | None]:
    """Return a page of a table's rows, newest first, and the cursor of the next page.

    Raises:
        Invalid: the cursor names no row of the table.
    """
    table: Any = query.column_descriptions[0]["entity"]
    key = (table.created_at, table.id)
    if cursor is not None:
        last = session.get(table, _row_id(cursor))
        if last is None:
            raise _unknown_cursor()
        query = query.where(tuple_(*key) < tuple_(last.created_at, last.id))
    rows = list(session.scalars(query.order_by(*(part.desc() for part in key)).limit(limit + 1)))
    following: Any = rows[limit - 1] if len(rows) > limit else None
    return rows[:limit], None if following is None else _encode(str(following.id))


def by_number(
    session: Session,
    query: Select[Row],
    column: InstrumentedAttribute[int],
    limit: int,
    cursor: str | None,
) -> tuple[list[Row], str | None]:
    """Return a page of rows in the order of a number, and the cursor of the next page."""
    if cursor is not None:
        query = query.where(column > _number(cursor))
    return _numbered(session, query.order_by(column), column, limit)


def by_number_down(
    session: Session,
    query: Select[Row],
    column: InstrumentedAttribute[int],
    limit: int,
    cursor: str | None,
) -> tuple[list[Row], str | None]:
    """Return a page of rows from the largest number down, and the cursor of the next page."""
    if cursor is not None:
        query = query.where(column < _number(cursor))
    return _numbered(session, query.order_by(column.desc()), column, limit)


def _numbered(
    session: Session, query: Select[Row], column: InstrumentedAttribute[int], limit: int
) -> tuple[list[Row], str | None]:
    rows = list(session.scalars(query.limit(limit + 1)))
    following = rows[limit - 1] if len(rows) > limit else None
    return rows[:limit], None if following is None else _encode(getattr(following, column.key))


def _number(cursor: str) -> int:
    number = _key(cursor)
    if type(number) is not int or not 0 <= number <= LARGEST_NUMBER:
        raise _unknown_cursor()
    return number


def _encode(key: str | int) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _key(cursor: str) -> object:
    """Return what a cursor holds; Invalid unless this module made the cursor."""
    try:
        key: object = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:
        raise _unknown_cursor() from error
    if not isinstance(key, str | int) or _encode(key) != cursor:
        raise _unknown_cursor()
    return key


def _row_id(cursor: str) -> UUID:
    key = _key(cursor)
    try:
        return UUID(str(key))
    except ValueError as error:
        raise _unknown_cursor() from error


def _unknown_cursor() -> Invalid:
    message = (
        "this list gave no such cursor: send the value of `next` of an answer, or leave the cursor "
        "out to begin at the start"
    )
    return Invalid(message, [ProblemItem(where="query.cursor", message=message)])
