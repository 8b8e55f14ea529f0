"""Ranks sources and models for a target, by the latest probe and the labels of now."""

from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.probes import reading
from app.probes.next_tiles import HOW
from app.probes.reading import Probe
from app.probes.schemas import SuggestedSource, SuggestedSources
from app.storage import Storage
from app.tables import Dataset, ModelKind, TrainedModel
from models.choice.judging import Candidate, Facts, judge
from models.choice.label_scores import LEAST_TILES
from models.choice.probed import Scored, best_of_each
from models.choice.verdict import CandidateVerdict
from models.data.class_map import ClassMap

_MOST_UNASKED = 100


def suggested_sources(
    session: Session, storage: Storage, dataset_id: UUID, limit: int
) -> SuggestedSources:
    """Rank what the latest probe asked, and name the sources of which it asked no model.

    Raises:
        NotFound: there is no such dataset.
    """
    dataset = datasets.get(session, dataset_id)
    probe = None
    if reading.has_probe(session, dataset_id):
        probe = reading.latest(session, storage, reading.read_tiles(session, dataset))
    items = [] if probe is None else _ranked(session, dataset, probe)
    items += _unasked(session, dataset, {item.source for item in items})
    told = None if probe is None else probe.read()
    return SuggestedSources(items=items[:limit], probe=told, notes=_notes(items, probe))


def _ranked(session: Session, dataset: Dataset, probe: Probe) -> list[SuggestedSource]:
    items = []
    for best in best_of_each(probe.scored):
        model = probe.models.get(best.look.meta.model)
        if model is not None:
            source = session.get_one(Dataset, model.source_id)
            items.append(_item(best, _as_it_is(best, probe), model, source, dataset.id))
    return items


def _as_it_is(best: Scored, probe: Probe) -> Scored:
    """Return the look of the same model, used as it is."""
    model = best.look.meta.model
    return next(
        each for each in probe.scored if each.look.meta.model == model and each.look.meta.as_it_is
    )


def _item(
    best: Scored, plain: Scored, model: TrainedModel, source: Dataset, target_id: UUID
) -> SuggestedSource:
    evidence, meta = best.evidence, best.look.meta
    judged = candidate_of(best)
    deleted = source.deleted_at is not None
    return SuggestedSource(
        source=source.id,
        source_name=source.name,
        source_deleted=deleted,
        model=model.id,
        kind=model.kind,
        candidate=meta.title,
        view=meta.view,
        statistics=meta.statistics,
        loss=evidence.interval(),
        gain=None if best is plain else evidence.gain_over(plain.evidence),
        balanced_accuracy=_mean(evidence.balanced_accuracy()),
        f1=_mean(evidence.f1()),
        consistency=meta.consistency,
        trained_on_labels=model.kind != ModelKind.SEGMENTER and model.target_id == target_id,
        classes=judged.classes,
        note=_note(best, model, deleted=deleted),
    )


def candidate_of(each: Scored) -> CandidateVerdict:
    """Return the errors of one look, counted in labelled tiles."""
    return judge([candidate(each)], facts_of(each)).candidates[0]


def candidate(each: Scored, *, name: str = "source-only") -> Candidate:
    return Candidate(name, each.look.meta.title, each.evidence)


def facts_of(each: Scored) -> Facts:
    return Facts(each.look.meta.class_names, source_area=each.look.source_area)


def _note(best: Scored, model: TrainedModel, *, deleted: bool) -> str:
    meta = best.look.meta
    if deleted:
        return "Its source was deleted, so nothing can be trained on it; the model can be used."
    if meta.view == "inverted":
        return (
            "It scores best on the inverted image: register the target again with `invert`, and "
            "adapt from this source."
        )
    if model.kind == ModelKind.SEGMENTER:
        return "Adapt from this source: POST /jobs/adapt takes over its segmenter."
    if meta.as_it_is:
        return "Segment with this model: POST /predict, without `stylise`."
    return "Adapt from its source: no request predicts with an adapted model in this way."


def _unasked(session: Session, dataset: Dataset, asked: set[UUID]) -> list[SuggestedSource]:
    """Return the datasets that could be sources, and of which no model was asked."""
    query = select(Dataset).where(
        datasets.live(), Dataset.num_masks > 0, Dataset.id != dataset.id, Dataset.id.not_in(asked)
    )
    newest = query.order_by(Dataset.created_at.desc(), Dataset.id).limit(_MOST_UNASKED)
    found = []
    for source in session.scalars(newest):
        try:
            ClassMap.between(dataset.class_names, source.class_names)
        except ValueError:
            continue
        found.append(_not_asked(session, source))
    return found


def _not_asked(session: Session, source: Dataset) -> SuggestedSource:
    of_source = select(TrainedModel.id).where(
        TrainedModel.source_id == source.id, TrainedModel.kind == ModelKind.SEGMENTER
    )
    trained = session.scalar(of_source.limit(1)) is not None
    return SuggestedSource(
        source=source.id,
        source_name=source.name,
        source_deleted=False,
        model=None,
        kind=None,
        candidate=None,
        view=None,
        statistics=None,
        loss=None,
        gain=None,
        balanced_accuracy=None,
        f1=None,
        consistency=None,
        trained_on_labels=False,
        classes={},
        note=(
            f"No probe has asked its segmenter: {HOW}."
            if trained
            else "No segmenter of it is trained: POST /jobs/pretrain trains one, which an "
            "adaptation takes over afterwards. Then send a probe."
        ),
    )


def _notes(items: list[SuggestedSource], probe: Probe | None) -> list[str]:
    if probe is None:
        notes = [f"No probe has looked at this dataset, so nothing is ranked. {HOW}."]
        if not items:
            notes.append(
                "No other dataset has masks of the same classes: register one as a source first."
            )
        return notes
    notes = []
    if all(item.loss is None for item in items):
        notes.append(
            "No tile that the probe looked at has a label, so only the consistency ranks: label "
            f"tiles until {LEAST_TILES} or more show each class, and as many do not."
        )
    elif len(items) > 1:
        notes.append(_told_apart([item for item in items if item.loss is not None]))
    told = probe.read()
    if told.newer_models:
        notes.append(f"{told.newer_models} models are newer than the probe: send another one.")
    return [note for note in notes if note]


def _told_apart(items: list[SuggestedSource]) -> str:
    """Say whether the first item is better than the second by more than chance."""
    if len(items) < 2 or items[0].loss is None or items[1].loss is None:
        return ""
    if items[0].loss.high < items[1].loss.low:
        return f"{items[0].source_name} is better than the next by more than chance."
    return (
        f"The intervals of {items[0].source_name} and the next overlap: the labels may not tell "
        "them apart."
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
