"""Reads the labels of an image as they are stored."""

from pydantic import JsonValue

from app.columns import stored_object
from models.data.labels import LabelState

_KNOWN: dict[str, LabelState] = {state: state for state in (LabelState.PRESENT, LabelState.ABSENT)}


def stored_labels(labels: JsonValue) -> dict[str, LabelState]:
    """Return the labels of an image, without words that this version does not know."""
    return {
        name: _KNOWN[word]
        for name, word in stored_object(labels).items()
        if isinstance(word, str) and word in _KNOWN
    }
