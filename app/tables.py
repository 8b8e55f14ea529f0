"""The record of what exists: datasets, images, labels, jobs, metrics and trained models."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.columns import Json, Names, Sections
from app.database import UtcDateTime, now_plus
from models.config import StyleFilterConfig
from models.config_versions import CONFIG_VERSION, upgraded
from models.data.sections import Section


class Lane(StrEnum):
    """What a job needs of a worker. A worker serves some lanes; its broker has a queue for each."""

    GPU_TRAIN = "gpu-train"
    GPU_INFER = "gpu-infer"
    CPU = "cpu"

    @property
    def needs_gpu(self) -> bool:
        return self != Lane.CPU


class JobState(StrEnum):
    """Where a job is; ``app/jobs/transitions.py`` has every way from one to another."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    """Its worker was lost; another takes it up, once a pause is over."""
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


WAITING = (JobState.QUEUED, JobState.INTERRUPTED)
"""States in which any worker may take the job."""

ACTIVE = (JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING)
"""States in which a worker holds the job."""

UNFINISHED = (*WAITING, JobState.PAUSED, *ACTIVE)

ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobKind(StrEnum):
    ADAPT = "adapt"
    TRAIN_STYLE = "train-style"
    PRETRAIN = "pretrain"
    STYLEFILTER = "stylefilter"
    EVALUATE = "evaluate"
    METHOD = "method"
    """One row of Table 1, or several that share a training, on one fold: a benchmark part."""
    BENCHMARK = "benchmark"
    """A table: waits for its parts, then writes the report."""


class ModelKind(StrEnum):
    STYLE = "style"
    SEGMENTER = "segmenter"
    STYLEFILTER = "stylefilter"
    BASELINE = "baseline"
    """A segmenter of another method: Y-Net, Paul et al., StyleFilter without one of its parts."""


class Table(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: UtcDateTime,
        dict[str, Any]: Json,
        list[Any]: Json,
        tuple[str, ...]: Names,
        tuple[Section, ...]: Sections,
    }


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _only(column: str, without: str | None = None) -> dict[str, Any]:
    """Leaves rows without a value in ``column``, or with one in ``without``, out of an index."""
    also = "" if without is None else f" AND {without} IS NULL"
    where = text(f"{column} IS NOT NULL{also}")
    return {"postgresql_where": where, "sqlite_where": where}


class Dataset(Table):
    """An immutable set of sections. Deleting keeps the row for lineage and drops the bytes."""

    __tablename__ = "datasets"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(200))
    class_names: Mapped[tuple[str, ...]]
    pixel_size_nm: Mapped[float]
    tile_px: Mapped[int | None]
    dtype: Mapped[str] = mapped_column(String(10))
    window_low: Mapped[float]
    window_high: Mapped[float]
    digest: Mapped[str] = mapped_column(String(64))
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    num_sections: Mapped[int]
    num_masks: Mapped[int]
    num_images: Mapped[int]
    sections: Mapped[tuple[Section, ...]] = mapped_column(deferred=True)
    created_at: Mapped[datetime] = mapped_column(default=now_plus())
    deleted_at: Mapped[datetime | None]


class Image(Table):
    """One image with image-level labels: a section, or a tile of one. ``n`` counts from 0."""

    __tablename__ = "images"

    dataset_id: Mapped[UUID] = mapped_column(ForeignKey(Dataset.id), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    section: Mapped[int]
    y0: Mapped[int]
    x0: Mapped[int]
    height: Mapped[int]
    width: Mapped[int]
    class_pixels: Mapped[list[Any] | None]
    """Pixels of each class in the mask; none without a mask."""
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Class name -> present | absent; a class that is missing is unknown."""


class _Configured:
    """Columns of a row that keeps a configuration as it was written."""

    config: Mapped[dict[str, Any]]
    config_version: Mapped[int | None] = mapped_column(default=CONFIG_VERSION)
    """Of ``config``; none if it was written before there were versions."""

    def usable_config(self) -> StyleFilterConfig:
        """Return the configuration in today's fields; ConfigUnusable if it cannot be run."""
        return upgraded(self.config, self.config_version)


class TrainedModel(_Configured, Table):
    """A registered result: weights in a folder, and where they come from."""

    __tablename__ = "trained_models"
    __table_args__ = (UniqueConstraint("job_id", "kind"), _one_of("kind", ModelKind))

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    kind: Mapped[str] = mapped_column(String(20))
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"))
    source_id: Mapped[UUID] = mapped_column(ForeignKey(Dataset.id))
    target_id: Mapped[UUID | None] = mapped_column(ForeignKey(Dataset.id))
    style_model_id: Mapped[UUID | None] = mapped_column(ForeignKey("trained_models.id"))
    segmenter_model_id: Mapped[UUID | None] = mapped_column(ForeignKey("trained_models.id"))
    path: Mapped[str] = mapped_column(String(300))
    class_names: Mapped[tuple[str, ...]]
    metrics: Mapped[dict[str, Any]]
    working_nm: Mapped[float]
    """Nanometres per pixel of the images that it sees."""
    fingerprint: Mapped[str | None] = mapped_column(String(64), index=True)
    """Of data, config and code; none for models of before there were fingerprints."""
    created_at: Mapped[datetime] = mapped_column(default=now_plus())


class Job(_Configured, Table):
    """One run. The row is the truth; every write of its worker carries the ``attempt``."""

    __tablename__ = "jobs"
    __table_args__ = (
        _one_of("state", JobState),
        _one_of("kind", JobKind),
        _one_of("lane", Lane),
        Index("ix_jobs_state_created_at", "state", "created_at"),
        Index("ix_jobs_created_at_id", "created_at", "id"),
        # What claims and the reconciler look through holds no ended job.
        Index(
            "ix_jobs_waiting", text("priority DESC"), "created_at", "lane", **_only("announce_at")
        ),
        Index("ix_jobs_held", "lease_until", **_only("lease_until")),
        Index("ix_jobs_remembered", "finished_at", **_only("finished_at", without="forgotten_at")),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20), default=JobState.QUEUED)
    source_id: Mapped[UUID | None] = mapped_column(ForeignKey(Dataset.id))
    target_id: Mapped[UUID | None] = mapped_column(ForeignKey(Dataset.id))
    # No foreign keys: models refer to jobs already, and SQLite lacks the ALTER a circle needs.
    style_model_id: Mapped[UUID | None]
    segmenter_model_id: Mapped[UUID | None]
    parent_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), index=True
    )
    """The benchmark that a job is a part of."""
    plan: Mapped[dict[str, Any] | None]
    """A benchmark's ``BenchmarkPlan`` or a part's ``BenchmarkPart`` (``models/table1/plan.py``)."""
    webhook_url: Mapped[str | None] = mapped_column(Text)
    stylise: Mapped[bool] = mapped_column(default=True)
    split: Mapped[str] = mapped_column(String(10), default="test")
    reuse: Mapped[bool] = mapped_column(default=True)

    stage: Mapped[str | None] = mapped_column(String(20))
    step: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    steps_per_second: Mapped[float | None]
    error_code: Mapped[str | None] = mapped_column(String(40))
    error_message: Mapped[str | None] = mapped_column(Text)
    error_traceback: Mapped[str | None] = mapped_column(Text)
    result: Mapped[dict[str, Any] | None]

    lane: Mapped[str] = mapped_column(String(20), default=Lane.CPU)
    priority: Mapped[int] = mapped_column(default=0)
    """Higher first."""
    max_attempts: Mapped[int] = mapped_column(default=5)
    lost_attempts: Mapped[int] = mapped_column(default=0)
    """Attempts that ended by the loss of their worker or trainer, since the user last asked."""
    not_before: Mapped[datetime | None]
    """Of an interrupted job: when it may be taken up."""

    attempt: Mapped[int] = mapped_column(default=0)
    """The number of the newest attempt; 0 before the first."""
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None]
    announcements: Mapped[int] = mapped_column(default=0)
    announce_at: Mapped[datetime | None]
    """When the reconciler announces a waiting job (again); none in all other states."""
    created_at: Mapped[datetime] = mapped_column(default=now_plus())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    forgotten_at: Mapped[datetime | None]
    """When its metrics and events were deleted for their age."""

    @property
    def eta_seconds(self) -> float | None:
        """Seconds that the current stage will still take; None where nothing tells it."""
        if self.state not in UNFINISHED or not self.steps_per_second:
            return None
        return (self.total - self.step) / self.steps_per_second


class JobDependency(Table):
    """A job that waits until another has succeeded, or just has ended."""

    __tablename__ = "job_dependencies"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    needs_id: Mapped[UUID] = mapped_column(
        ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True, index=True
    )
    success: Mapped[bool] = mapped_column(default=True)
    """Whether the other has to succeed; if not, its end is enough."""


class JobEvent(Table):
    """Something that happened to a job, in the order it did; written with what it tells of."""

    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job_id_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(20))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now_plus())


class IdempotencyKey(Table):
    """A client's name for a submission: sent twice, it makes one job."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_digest: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=now_plus(), index=True)


class WebhookDelivery(Table):
    """A state event on its way to the URL of its job; the row goes when it has arrived."""

    __tablename__ = "webhook_deliveries"

    event_id: Mapped[int] = mapped_column(
        ForeignKey(JobEvent.id, ondelete="CASCADE"), primary_key=True
    )
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime] = mapped_column(default=now_plus(), index=True)


class JobStage(Table):
    """How far each stage of a job came and how long it took."""

    __tablename__ = "job_stages"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    stage: Mapped[str] = mapped_column(String(20), primary_key=True)
    position: Mapped[int]
    step: Mapped[int]
    total: Mapped[int]
    seconds: Mapped[float]
    finished: Mapped[bool] = mapped_column(default=False)


class MetricPoint(Table):
    """One value of one series: a loss or a validation DICE at a step of a stage."""

    __tablename__ = "metric_points"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    stage: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(250), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float]
