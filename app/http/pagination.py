"""Divides long lists into pages; a cursor tells where the next page begins.

A cursor belongs to the list that gave it, with its filters, and is refused by all others.
"""

import base64
import hashlib
import json
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select, true, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.errors import Invalid, ProblemItem

Item = TypeVar("Item")
Row = TypeVar("Row")

_DIGEST_CHARACTERS = 12

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
        Invalid: this list did not give the cursor.
    """
    table: Any = query.column_descriptions[0]["entity"]
    key, of = (table.created_at, table.id), _list_of(query)
    if cursor is not None:
        last = session.get(table, _row_id(cursor, of))
        if last is None:
            raise _unknown_cursor()
        query = query.where(tuple_(*key) < tuple_(last.created_at, last.id))
    rows = list(session.scalars(query.order_by(*(part.desc() for part in key)).limit(limit + 1)))
    following: Any = rows[limit - 1] if len(rows) > limit else None
    return rows[:limit], None if following is None else _encode(str(following.id), of)


def by_number(
    session: Session,
    query: Select[Row],
    column: InstrumentedAttribute[int],
    limit: int,
    cursor: str | None,
) -> tuple[list[Row], str | None]:
    """Return a page of rows in the order of a number, and the cursor of the next page."""
    of = _list_of(query)
    following = query if cursor is None else query.where(column > _number(cursor, of))
    return _numbered(session, following.order_by(column), column, limit, of)


def by_number_down(
    session: Session,
    query: Select[Row],
    column: InstrumentedAttribute[int],
    limit: int,
    cursor: str | None,
) -> tuple[list[Row], str | None]:
    """Return a page of rows from the largest number down, and the cursor of the next page."""
    of = _list_of(query)
    following = query if cursor is None else query.where(column < _number(cursor, of))
    return _numbered(session, following.order_by(column.desc()), column, limit, of)


def _numbered(
    session: Session, query: Select[Row], column: InstrumentedAttribute[int], limit: int, of: str
) -> tuple[list[Row], str | None]:
    rows = list(session.scalars(query.limit(limit + 1)))
    following = rows[limit - 1] if len(rows) > limit else None
    return rows[:limit], None if following is None else _encode(getattr(following, column.key), of)


def _list_of(query: Select[Row]) -> str:
    """Return a short digest of a list's table and filters."""
    clause = query.whereclause
    filters = (true() if clause is None else clause).compile()
    values = sorted((name, str(value)) for name, value in filters.params.items())
    told = (query.column_descriptions[0]["entity"].__tablename__, str(filters), values)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:_DIGEST_CHARACTERS]


def _number(cursor: str, of: str) -> int:
    number = _key(cursor, of)
    if type(number) is not int or not 0 <= number <= LARGEST_NUMBER:
        raise _unknown_cursor()
    return number


def _encode(key: str | int, of: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([of, key]).encode()).decode().rstrip("=")


def _key(cursor: str, of: str) -> str | int:
    """Return the key that a cursor holds; Invalid unless it was made for the list ``of``."""
    try:
        told: object = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:
        raise _unknown_cursor() from error
    match told:
        case [str(made_for), str() | int() as key] if made_for == of and _encode(key, of) == cursor:
            return key
    raise _unknown_cursor()


def _row_id(cursor: str, of: str) -> UUID:
    key = _key(cursor, of)
    try:
        return UUID(str(key))
    except ValueError as error:
        raise _unknown_cursor() from error


def _unknown_cursor() -> Invalid:
    message = (
        "this list, with these filters, gave no such cursor: send the value of `next` of an answer "
        "with the filters of that answer, or leave the cursor out to begin at the start"
    )
    return Invalid(message, [ProblemItem(where="query.cursor", message=message)])
