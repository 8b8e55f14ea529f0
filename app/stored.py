"""Reads stored JSON, whatever it holds, so that one bad row never makes a list fail."""

from pydantic import JsonValue


def stored_list(value: JsonValue) -> list[JsonValue]:
    """Return a stored list; an empty one if something else was stored."""
    return value if isinstance(value, list) else []


def stored_object(value: JsonValue) -> dict[str, JsonValue]:
    """Return a stored object; an empty one if something else was stored."""
    return value if isinstance(value, dict) else {}
