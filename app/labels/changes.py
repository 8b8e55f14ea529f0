"""Writes changes of labels, counts them as versions, and keeps who made them.

A change of many images is written in several short transactions, so that others can write to the
database meanwhile. Until it is complete, no other change of the same labels begins.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, update
from sqlalchemy.orm import Session

from app.database import Database, now_plus
from app.datasets import service as datasets
from app.errors import Busy, ChangedMeanwhile, Conflict
from app.http.pagination import by_number_down
from app.labels.collected import Classes
from app.labels.counts import Counts, Shift, counted, shifted
from app.labels.points import Wanted, consistent, write_points
from app.labels.stored import stored_labels
from app.tables import ChangeKind, Dataset, Image, LabelChange
from models.data.labels import LabelState

_IMAGES_AT_ONCE = 5000
_ABANDONED_SECONDS = 60


@dataclass(frozen=True)
class Version:
    """The version of a dataset's labels: the number of the last change, 0 before the first.

    ``tag`` also differs between the states of labels while a change is being written.
    """

    number: int
    tag: str


@dataclass(frozen=True)
class AskedChange:
    """The facts of a change to make. ``if_match`` holds the tags that the labels may have."""

    by: str | None = None
    seconds: float | None = None
    if_match: str | None = None


def write(
    database: Database,
    dataset_id: UUID,
    wanted: Wanted,
    kind: ChangeKind,
    asked: AskedChange,
) -> tuple[Version, int, int]:
    """Give images, by their numbers, labels of some classes and points; others stay.

    Return the version of the labels, and the numbers of images whose labels changed and of points
    that changed. If there is neither, the version stays.

    Raises:
        Invalid: labels and points contradict each other; nothing was written.
        NotFound: the dataset was deleted.
        ChangedMeanwhile: the labels have another version than ``asked.if_match`` says.
        Busy: another change of the same labels is being written.
    """
    with database.session() as session:
        entry = _begin(session, dataset_id, kind, asked)
        wanted = consistent(session, dataset_id, wanted)
        numbers = wanted.numbers
        for start in range(0, len(numbers), _IMAGES_AT_ONCE):
            if start:
                session.commit()
                database.give_way()
                _go_on(session, entry)
            some = numbers[start : start + _IMAGES_AT_ONCE]
            changed, shift = _write_some(session, dataset_id, some, wanted.labels)
            entry.changed_points += write_points(session, dataset_id, some, wanted.points)
            entry.changed_images += changed
            entry.counts = shifted(entry.counts or {}, shift)
            entry.changed_at = now_plus()
        entry.complete = True
        if not (entry.changed_images or entry.changed_points):
            session.delete(entry)
        version = current(session, dataset_id)
        session.commit()
    return version, entry.changed_images, entry.changed_points


def current(session: Session, dataset_id: UUID) -> Version:
    """Return the version of a dataset's labels.

    Read it before the labels: if somebody changes them in between, a change that names this version
    is refused without need, but none is lost.
    """
    return _version(session.scalar(_last(dataset_id)))


def counts(session: Session, dataset_id: UUID) -> Counts:
    """Return for each class the number of images by label, as the last change left them."""
    return _counts(session, dataset_id, session.scalar(_last(dataset_id)))


def history(
    session: Session, dataset_id: UUID, limit: int, cursor: str | None
) -> tuple[list[LabelChange], str | None]:
    """Return a page of the changes of a dataset's labels, newest first, and the next cursor."""
    query = select(LabelChange).where(LabelChange.dataset_id == dataset_id)
    return by_number_down(session, query, LabelChange.version, limit, cursor)


def _begin(session: Session, dataset_id: UUID, kind: ChangeKind, asked: AskedChange) -> LabelChange:
    _lock(session, dataset_id)
    last = session.scalar(_last(dataset_id))
    if last is not None and not last.complete and _recent(session, last):
        raise Busy(
            f"another change of the labels of dataset {dataset_id} is being written: send the "
            "labels again in some seconds",
            retry_after_seconds=5,
        )
    version = _version(last)
    if asked.if_match is not None and not _named(asked.if_match, version.tag):
        who = "" if last is None or last.by is None else f" by {last.by}"
        raise ChangedMeanwhile(
            f"the labels of dataset {dataset_id} have the version {version.tag} now, and If-Match "
            f"names {asked.if_match[:100]}. Their last change{who} came in between: GET the "
            "labels, look which of yours still hold, and send those with the new version"
        )
    entry = LabelChange(
        dataset_id=dataset_id,
        version=version.number + 1,
        kind=kind,
        by=asked.by,
        seconds=asked.seconds,
        counts=_counts(session, dataset_id, last),
        changed_images=0,
        changed_points=0,
        complete=False,
    )
    session.add(entry)
    return entry


def _go_on(session: Session, entry: LabelChange) -> None:
    """Begin the next transaction of a change; Conflict if another change has begun meanwhile."""
    _lock(session, entry.dataset_id)
    if current(session, entry.dataset_id).number != entry.version:
        raise Conflict(
            f"the labels were written too slowly, so another change began: {entry.changed_images} "
            "images have their new labels. Send all labels again"
        )


def _lock(session: Session, dataset_id: UUID) -> None:
    """Let no other change of the labels begin or go on before this transaction ends."""
    datasets.get(session, dataset_id)
    # FOR NO KEY UPDATE on PostgreSQL: jobs of the dataset can be submitted meanwhile.
    session.get(Dataset, dataset_id, populate_existing=True, with_for_update={"key_share": True})
    datasets.get(session, dataset_id)


def _write_some(
    session: Session, dataset_id: UUID, numbers: Sequence[int], wanted: Mapping[int, Classes]
) -> tuple[int, Shift]:
    """Write labels where they differ from those that are stored.

    Return the number of images, and by how many images each label has more or fewer.
    """
    shift: Shift = Counter()
    query = select(Image.n, Image.labels).where(*_these(dataset_id, numbers))
    alike: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for n, labels in session.execute(query.order_by(Image.n).with_for_update()):
        stored = stored_labels(labels)
        merged = {**stored, **wanted.get(n, {})}
        new = {name: word for name, word in merged.items() if word != LabelState.UNKNOWN}
        if new != labels:
            alike.setdefault(tuple(sorted(new.items())), []).append(n)
            shift.subtract(stored.items())
            shift.update(new.items())
    # Far fewer statements than images: most images get the same labels as another.
    for items, of_images in alike.items():
        images = update(Image).where(*_these(dataset_id, of_images))
        session.execute(
            images.values(labels=dict(items)), execution_options={"synchronize_session": False}
        )
    return sum(map(len, alike.values())), shift


def _these(
    dataset_id: UUID, numbers: Sequence[int]
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions by which these images, in order, are found."""
    first, last = numbers[0], numbers[-1]
    gapless = last - first + 1 == len(numbers)
    chosen = Image.n.between(first, last) if gapless else Image.n.in_(numbers)
    return Image.dataset_id == dataset_id, chosen


def _counts(session: Session, dataset_id: UUID, last: LabelChange | None) -> Counts:
    if last is None:
        return {}
    return counted(session, dataset_id) if last.counts is None else last.counts


def _last(dataset_id: UUID) -> Select[LabelChange]:
    query = select(LabelChange).where(LabelChange.dataset_id == dataset_id)
    return query.order_by(LabelChange.version.desc()).limit(1)


def _recent(session: Session, change: LabelChange) -> bool:
    """Tell whether a change was written to so lately that its writer must be at work."""
    key = LabelChange.dataset_id == change.dataset_id, LabelChange.version == change.version
    recent = LabelChange.changed_at > now_plus(-_ABANDONED_SECONDS)
    return session.scalar(select(LabelChange.version).where(*key, recent)) is not None


def _version(last: LabelChange | None) -> Version:
    if last is None:
        return Version(0, "0")
    tag = f"{last.version}" if last.complete else f"{last.version}.{last.changed_images}"
    return Version(last.version, tag)


def _named(if_match: str, tag: str) -> bool:
    """Tell whether a header If-Match names a tag. Proxies may have made the tag a weak one."""
    names = [name.strip().removeprefix("W/").strip('"') for name in if_match.split(",")]
    return "*" in names or tag in names
