"""Reads the latest probe of a dataset, and scores it by the labels that the dataset has now."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.columns import stored_object
from app.database import now_plus
from app.probes.schemas import ProbeRead
from app.storage import Storage
from app.tables import ADAPTED, Dataset, Image, Job, JobKind, JobState, ModelKind, TrainedModel
from models.choice.looks import FILE, Look, LooksUnreadable, load_looks
from models.choice.probed import ProbeResult, Scored, scored
from models.data.labels import UNKNOWN, label_codes

_SEGMENTERS = (ModelKind.SEGMENTER, *ADAPTED)


@dataclass(frozen=True)
class TargetTiles:
    """The T tiles of a dataset as arrays, in the order of their numbers.

    ``sections`` (T,) holds the index of each tile's section, ``boxes`` (T, 4) its y0, x0, height
    and width, ``labels`` (T, C) its labels: -1 (unknown), 0 (absent) or 1 (present). ``training``
    (T,) tells whether its section is in the train split.
    """

    dataset: Dataset
    sections: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    training: NDArray[np.bool_]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Tell for each tile, (T,), whether it is a training tile with a known label."""
        return np.asarray(self.training & (self.labels != UNKNOWN).any(axis=1))


def read_tiles(session: Session, dataset: Dataset) -> TargetTiles:
    """Read the tiles of a dataset with their present labels."""
    columns = Image.section, Image.y0, Image.x0, Image.height, Image.width, Image.labels
    query = select(*columns).where(Image.dataset_id == dataset.id).order_by(Image.n)
    rows = session.execute(query).all()
    names = dataset.class_names
    codes = {repr(row[5]): label_codes(row[5], names) for row in rows}  # most are alike
    sections = np.array([row[0] for row in rows], np.int64)
    train = [section.index for section in dataset.sections if section.split == "train"]
    return TargetTiles(
        dataset=dataset,
        sections=sections,
        boxes=np.array([row[1:5] for row in rows], np.float64).reshape(-1, 4),
        labels=np.array([codes[repr(row[5])] for row in rows], np.int64).reshape(-1, len(names)),
        training=np.isin(sections, train),
    )


@dataclass(frozen=True)
class Probe:
    """The latest probe of a dataset; ``models`` holds the rows of the models that it asked."""

    job: Job
    result: ProbeResult
    looks: tuple[Look, ...]
    tiles: TargetTiles
    models: dict[str, TrainedModel]
    newer_models: int
    read_at: datetime

    @property
    def meanings(self) -> dict[str, str] | None:
        """The source's classes that classes of the dataset are, as the probe was told."""
        return self.job.target_classes

    @cached_property
    def scored(self) -> tuple[Scored, ...]:
        """The looks, scored by the labels that the dataset has now."""
        names = self.tiles.dataset.class_names
        return tuple(
            scored(look, look.evidence(self.tiles.labels, names, self.meanings))
            for look in self.looks
        )

    def presence(self) -> NDArray[np.float64]:
        """Return the probabilities (K, T, C) that each class is in each tile; NaN if not seen."""
        names, number = self.tiles.dataset.class_names, len(self.tiles.labels)
        return np.stack([look.presence(number, names, self.meanings) for look in self.looks])

    def read(self) -> ProbeRead:
        """Describe the probe."""
        seen = np.zeros(len(self.tiles.labels), dtype=bool)
        seen[self.looks[0].tiles] = True
        labelled = self.tiles.labelled
        assert self.job.finished_at is not None
        return ProbeRead(
            job=self.job.id,
            finished_at=self.job.finished_at,
            age_seconds=max(0.0, (self.read_at - self.job.finished_at).total_seconds()),
            num_models=len(self.result.models),
            newer_models=self.newer_models,
            num_sections=self.result.num_sections,
            of_sections=self.result.of_sections,
            num_tiles=self.result.num_tiles,
            num_labelled=int((labelled & seen).sum()),
            labelled_elsewhere=int((labelled & ~seen).sum()),
            left_out=list(self.result.left_out),
        )


def has_probe(session: Session, target_id: UUID) -> bool:
    """Tell whether some probe of a dataset has succeeded; its files may be gone."""
    return session.scalar(_probes(target_id).limit(1)) is not None


def latest(
    session: Session, storage: Storage, tiles: TargetTiles, source_id: UUID | None = None
) -> Probe | None:
    """Return the newest probe of a dataset whose files are there and can be read, if any.

    With ``source_id`` it is the newest one that asked a segmenter of this source alone.
    """
    for job in session.scalars(_probes(tiles.dataset.id)):
        try:
            result = ProbeResult.model_validate(stored_object(job.result).get("probe"))
            looks = load_looks(storage.attempt(job.id, job.attempt) / FILE)
        except (LooksUnreadable, ValidationError):
            continue
        if not looks or any(look.tiles.max(initial=-1) >= len(tiles.labels) for look in looks):
            continue
        asked = [UUID(look.meta.model) for look in looks]
        rows = session.scalars(select(TrainedModel).where(TrainedModel.id.in_(set(asked)))).all()
        if source_id is not None and not any(of_source(row, source_id) for row in rows):
            continue
        return Probe(
            job=job,
            result=result,
            looks=tuple(looks),
            tiles=tiles,
            models={str(row.id): row for row in rows},
            newer_models=_registered_after(session, job),
            read_at=session.scalars(select(now_plus())).one(),
        )
    return None


def of_source(model: TrainedModel, source_id: UUID) -> bool:
    """Tell whether a model is a segmenter that was trained on a source alone."""
    return model.kind == ModelKind.SEGMENTER and model.source_id == source_id


def _probes(target_id: UUID) -> Select[Job]:
    query = select(Job).where(
        Job.kind == JobKind.PROBE,
        Job.state == JobState.SUCCEEDED,
        Job.target_id == target_id,
    )
    return query.order_by(Job.finished_at.desc(), Job.id)


def _registered_after(session: Session, job: Job) -> int:
    query = select(func.count()).where(
        TrainedModel.kind.in_(_SEGMENTERS), TrainedModel.created_at > job.created_at
    )
    return session.scalar(query) or 0
