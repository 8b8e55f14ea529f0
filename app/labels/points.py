"""Points of images ("here is one"): stored with the labels of the image that holds them.

A point that is *present* makes its image present for the class. So no image is called absent, or
unknown, where a point of the class is present.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from app.errors import ProblemItem
from app.labels.collected import MOST_PROBLEMS, Classes, refused
from app.labels.stored import stored_labels
from app.tables import Image
from models.data.labels import LabelState

MOST_POINTS = 100_000
"""The most points of one request."""

MOST_OF_IMAGE = 1000
"""The most points of one image, so that a page of images stays small."""

_IMAGES_AT_ONCE = 5000

Place = tuple[int, int, str]
"""A pixel of a section, y and x from 0, and the name of a class."""

AskedPoints = Mapping[Place, LabelState]


@dataclass(frozen=True)
class Wanted:
    """Labels and points to write, by the number of the image."""

    labels: Mapping[int, Classes]
    points: Mapping[int, AskedPoints] = field(default_factory=dict)

    @property
    def numbers(self) -> list[int]:
        """The images, in order."""
        return sorted(self.labels.keys() | self.points.keys())


def stored_points(points: JsonValue) -> dict[Place, LabelState]:
    """Return the points of an image."""
    found: dict[Place, LabelState] = {}
    for each in points if isinstance(points, list) else []:
        match each:
            case [int(y), int(x), str(name), str(word)]:
                found[y, x, name] = LabelState(word)
    return found


def consistent(session: Session, dataset_id: UUID, wanted: Wanted) -> Wanted:
    """Return what is to be written, with the labels that points imply.

    Raises:
        Invalid: an image would be called absent, or unknown, where a point says present; a pixel
            would be of two classes; or an image would have too many points.
    """
    implied: dict[int, Classes] = {}
    listed, count = list[ProblemItem](), 0
    for n, labels, points in _concerned(session, dataset_id, wanted):
        after = _merged(points, wanted.points.get(n, {}))
        given = wanted.labels.get(n, {})
        found = list(_problems(labels, given, after, asked=wanted.points.get(n, {})))
        count += len(found)
        room = MOST_PROBLEMS - len(listed)
        listed += [ProblemItem(where=f"image {n}", message=words) for words in found[:room]]
        names = {name for (_, _, name), word in after.items() if word == LabelState.PRESENT}
        if names:
            implied[n] = dict.fromkeys(names, LabelState.PRESENT)
    if count:
        raise refused(count, listed)
    with_implied = {n: {**wanted.labels.get(n, {}), **classes} for n, classes in implied.items()}
    return Wanted({**wanted.labels, **with_implied}, wanted.points)


def write_points(
    session: Session, dataset_id: UUID, numbers: Sequence[int], points: Mapping[int, AskedPoints]
) -> int:
    """Write the points of some images where they differ; return how many points changed."""
    asked = [n for n in numbers if n in points]
    changed = 0
    for n, _, stored in _rows(session, dataset_id, asked):
        after = _merged(stored, points[n])
        if after != stored:
            changed += sum(stored.get(key) != after.get(key) for key in stored.keys() | after)
            value = [[*place, str(word)] for place, word in sorted(after.items())]
            row = update(Image).where(Image.dataset_id == dataset_id, Image.n == n)
            session.execute(
                row.values(points=value or None), execution_options={"synchronize_session": False}
            )
    return changed


def pointed(dataset_id: UUID) -> Select[int, int, JsonValue]:
    """Select number, section and points of the images that have points, in order."""
    query = select(Image.n, Image.section, Image.points)
    return query.where(Image.dataset_id == dataset_id, Image.points.is_not(None)).order_by(Image.n)


def point_counts(
    session: Session, dataset_id: UUID, class_names: Sequence[str]
) -> dict[str, dict[LabelState, int]]:
    """Return for each class that has points the number of those that are present, and absent."""
    counts: Counter[tuple[str, LabelState]] = Counter()
    for _, _, points in session.execute(pointed(dataset_id)):
        counts.update((name, word) for (_, _, name), word in stored_points(points).items())
    states = LabelState.PRESENT, LabelState.ABSENT
    named = {name for name, _ in counts}
    return {
        name: {state: counts[name, state] for state in states}
        for name in class_names
        if name in named
    }


def _merged(stored: Mapping[Place, LabelState], asked: AskedPoints) -> dict[Place, LabelState]:
    """Return the points after a change; one that is said to be unknown is taken away."""
    merged = {**stored, **asked}
    return {place: word for place, word in merged.items() if word != LabelState.UNKNOWN}


def _problems(
    labels: Classes, given: Classes, after: Mapping[Place, LabelState], asked: AskedPoints
) -> Iterator[str]:
    """Yield what is wrong with the points that an image would have, in words."""
    if len(after) > MOST_OF_IMAGE:
        yield f"would have {len(after)} points: an image has {MOST_OF_IMAGE} at most"
        return
    at: dict[tuple[int, int], str] = {}
    for (y, x, name), word in sorted(after.items()):
        if word != LabelState.PRESENT:
            continue
        where = f"the point of {name!r} at y {y}, x {x}"
        other = at.setdefault((y, x), name)
        if other != name:
            yield f"{where} lies on one of {other!r}: a pixel is of one class, so take one away"
        told = given.get(name, labels.get(name))
        if told == LabelState.ABSENT:
            yield (
                f"the label says that {name!r} is absent, and {where} says that it is present: "
                "label the image present or unknown, or take the point away (unknown)"
                if (y, x, name) in asked
                else f"{where} says that it is present, so the image cannot be labelled absent: "
                "take the point away first, by sending it as unknown"
            )
        elif given.get(name) == LabelState.UNKNOWN and (y, x, name) not in asked:
            yield f"{where} makes the image present, so it cannot be unknown: take the point away"


def _concerned(
    session: Session, dataset_id: UUID, wanted: Wanted
) -> Iterator[tuple[int, Classes, dict[Place, LabelState]]]:
    """Yield the images with points whose labels or points are to change."""
    has_points = set(session.scalars(pointed(dataset_id).with_only_columns(Image.n)))
    numbers = wanted.points.keys() | (has_points & wanted.labels.keys())
    yield from _rows(session, dataset_id, sorted(numbers))


def _rows(
    session: Session, dataset_id: UUID, numbers: Sequence[int]
) -> Iterator[tuple[int, Classes, dict[Place, LabelState]]]:
    for start in range(0, len(numbers), _IMAGES_AT_ONCE):
        some = numbers[start : start + _IMAGES_AT_ONCE]
        query = select(Image.n, Image.labels, Image.points)
        query = query.where(Image.dataset_id == dataset_id, Image.n.in_(some)).order_by(Image.n)
        for n, labels, points in session.execute(query):
            yield n, stored_labels(labels), stored_points(points)
