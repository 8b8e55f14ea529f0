"""JSON of rows, read whatever it holds: no row takes the list away that shows it."""

from pydantic import JsonValue


def stored_list(value: JsonValue) -> list[JsonValue]:
    """Return a stored list; one without elements where something else was stored."""
    return value if isinstance(value, list) else []


def stored_object(value: JsonValue) -> dict[str, JsonValue]:
    """Return a stored object; one without fields where something else was stored."""
    return value if isinstance(value, dict) else {}
