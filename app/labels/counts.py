"""Counts the images that have each label, from one change of the labels to the next.

To count all labels of a million images takes seconds. So each change keeps the counts after it, in
the transaction that writes the labels.
"""

from collections import Counter
from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import TableValuedAlias, case, func, literal, select, true
from sqlalchemy.orm import Session

from app.columns import Json
from app.tables import Dataset, Image
from models.data.labels import LabelState

Counts = dict[str, dict[str, int]]
"""For each class, the number of images by the word of their label."""

Shift = Counter[tuple[str, str]]
"""The images that a class has more, or fewer, with a word, by class and word."""


def counted(session: Session, dataset_id: UUID) -> Counts:
    """Count the labels of all images, in the database."""
    each = _each_label(session)
    query = select(each.c.key, each.c.value, func.count()).join_from(Image, each, true())
    query = query.where(Image.dataset_id == dataset_id).group_by(each.c.key, each.c.value)
    counts: Counts = {}
    for name, word, count in session.execute(query):
        if word in (LabelState.PRESENT, LabelState.ABSENT):
            counts.setdefault(name, {})[word] = count
    return counts


def shifted(counts: Counts, shift: Shift) -> Counts:
    """Return the counts after a change."""
    new = {name: dict(words) for name, words in counts.items()}
    for (name, word), number in shift.items():
        words = new.setdefault(name, {})
        words[word] = words.get(word, 0) + number
    return new


def by_state(
    counts: Mapping[str, Mapping[str, int]], dataset: Dataset
) -> dict[str, dict[LabelState, int]]:
    """Return for each class of a dataset the number of images in each state."""
    states = {}
    for name in dataset.class_names:
        words = counts.get(name, {})
        known = {word: words.get(word, 0) for word in (LabelState.PRESENT, LabelState.ABSENT)}
        states[name] = {**known, LabelState.UNKNOWN: dataset.num_images - sum(known.values())}
    return states


def _each_label(session: Session) -> TableValuedAlias:
    """Return the labels of an image as rows: ``key`` is the class, ``value`` the word."""
    if session.get_bind().dialect.name == "postgresql":
        is_object = func.jsonb_typeof(Image.labels) == "object"
        labels = case((is_object, Image.labels), else_=literal({}, Json))
        return func.jsonb_each_text(labels).table_valued("key", "value")
    return func.json_each(Image.labels).table_valued("key", "value")
