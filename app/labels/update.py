"""Reads labels from JSON, some entries at a time, so that many wrong ones cost little."""

from pydantic import TypeAdapter, ValidationError

from app.errors import ProblemItem, refusal
from app.http.json_body import parsed
from app.labels.collected import MOST_PROBLEMS, refused
from app.labels.schemas import MOST_LABELS, ImageLabels, LabelsUpdate, PointLabel

_MOST_VALUES = 10 * MOST_LABELS
_CHUNK = 1000
_UPDATE = TypeAdapter(LabelsUpdate)


def read_update(body: bytes) -> LabelsUpdate:
    """Return the labels in a body, whose entries are valid by themselves.

    Raises:
        Invalid: it is no such JSON, or names each entry that is wrong, up to MOST_PROBLEMS.
        TooLarge: it holds more values than a million labels need.
    """
    values = parsed(body, _MOST_VALUES)
    entries = values.get("labels") if isinstance(values, dict) else None
    if not isinstance(values, dict) or not isinstance(entries, list) or len(entries) <= _CHUNK:
        return _valid(values, 0)
    if len(entries) > MOST_LABELS:
        raise refusal(
            "labels", f"there are {len(entries)} entries: send at most {MOST_LABELS} at once"
        )
    read: list[ImageLabels] = []
    points: list[PointLabel] = []
    for start in range(0, len(entries), _CHUNK):
        part = _valid({**values, "labels": entries[start : start + _CHUNK]}, start)
        read += part.labels
        points += part.points
        values = {**values, "points": []}  # checked with the first entries
    return LabelsUpdate.model_construct(labels=read, points=points)


def _valid(values: object, start: int) -> LabelsUpdate:
    """Return some of the entries, of which the first has the number ``start``."""
    try:
        return _UPDATE.validate_python(values)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        items = [
            ProblemItem(
                where=".".join(map(str, ("body", *_whole_place(each["loc"], start)))),
                message=each["msg"].removeprefix("Value error, "),
            )
            for each in errors[:MOST_PROBLEMS]
        ]
        raise refused(len(errors), items) from error


def _whole_place(place: tuple[int | str, ...], start: int) -> tuple[int | str, ...]:
    """Return the place of an error, such as labels.7.image, in the whole list of entries."""
    match place:
        case ("labels", int(entry), *rest):
            return ("labels", entry + start, *rest)
    return place
