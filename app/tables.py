"""The tables of the database: datasets, images, labels, jobs, metrics and trained models."""

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

from app.columns import HistogramType, Json, JsonOrNone, Names, Notes, Sections
from app.database import UtcDateTime, now_plus
from models.config.stylefilter import StyleFilterConfig
from models.config.versions import CONFIG_VERSION, upgraded
from models.data.intake.findings import Note
from models.data.intake.grey_values import Histogram
from models.data.sections import Section


class Lane(StrEnum):
    """The queue of a job, by the hardware that it needs. A worker serves one lane or several."""

    GPU_TRAIN = "gpu-train"
    GPU_INFER = "gpu-infer"
    CPU = "cpu"
    DATA = "data"
    """Registers datasets. A worker runs one such job beside the job that it trains."""

    @property
    def needs_gpu(self) -> bool:
        return self in (Lane.GPU_TRAIN, Lane.GPU_INFER)


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    """The worker of the job was lost. Another worker may take the job after a pause."""
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


WAITING = (JobState.QUEUED, JobState.INTERRUPTED)
"""The states in which any worker may take the job."""

ACTIVE = (JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING)
"""The states in which a worker holds the job."""

UNFINISHED = (*WAITING, JobState.PAUSED, *ACTIVE)

ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobKind(StrEnum):
    """The kind of a job."""

    ADAPT = "adapt"
    TRAIN_STYLE = "train-style"
    PRETRAIN = "pretrain"
    STYLEFILTER = "stylefilter"
    EVALUATE = "evaluate"
    METHOD = "method"
    """A part of a benchmark: it measures the rows that share a training, in one fold."""
    BENCHMARK = "benchmark"
    """A benchmark waits for its parts, and then writes the report with the table."""
    PROBE = "probe"
    """A probe asks trained models about a target, and trains nothing."""
    REGISTER = "register"
    """A registration reads, checks and stores the files of a dataset."""


class ModelKind(StrEnum):
    """The kind of a trained model."""

    STYLE = "style"
    """CUT's generator, which stylises images of the target."""
    SEGMENTER = "segmenter"
    """A segmenter that was trained on the source alone."""
    STYLEFILTER = "stylefilter"
    """A segmenter that StyleFilter adapted to the target."""
    BASELINE = "baseline"
    """A segmenter of another method: Y-Net, Paul et al., StyleFilter without one of its parts."""
    CHOSEN = "chosen"
    """A segmenter that the target's labels chose, with the view that comes before it."""


ADAPTED = (ModelKind.STYLEFILTER, ModelKind.BASELINE, ModelKind.CHOSEN)
"""The kinds of models that are made for a target."""


class ChangeKind(StrEnum):
    """The kind of a change of labels: by JSON, by a table of CSV, or derived from masks."""

    PUT = "put"
    CSV = "csv"
    DERIVE = "derive"
    VERSION = "version"
    """The labels were taken over from the version of the dataset before."""


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
        tuple[Note, ...]: Notes,
        Histogram: HistogramType,
    }


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _only(column: str, without: str | None = None) -> dict[str, Any]:
    """Return options that limit an index to rows with ``column`` set and ``without`` not set."""
    also = "" if without is None else f" AND {without} IS NULL"
    where = text(f"{column} IS NOT NULL{also}")
    return {"postgresql_where": where, "sqlite_where": where}


class Dataset(Table):
    """A dataset, which never changes. When it is deleted its row stays, because models name it."""

    __tablename__ = "datasets"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[int] = mapped_column(default=1)
    previous_id: Mapped[UUID | None] = mapped_column(ForeignKey("datasets.id"), index=True)
    """The version before; none for a dataset that was registered by itself."""
    class_names: Mapped[tuple[str, ...]]
    pixel_size_nm: Mapped[float]
    pixel_size_from: Mapped[str] = mapped_column(String(10), default="request")
    """Says who gave the pixel size: the ``request``, or the ``file``."""
    tile_px: Mapped[int | None]
    dtype: Mapped[str] = mapped_column(String(10))
    window_low: Mapped[float]
    window_high: Mapped[float]
    digest: Mapped[str] = mapped_column(String(64))
    """The SHA-256 of pixels, masks and description."""
    pixels_digest: Mapped[str | None] = mapped_column(String(64), index=True)
    """The SHA-256 of the images' pixels alone; none for a dataset of an earlier version."""
    identity: Mapped[str | None] = mapped_column(String(64), unique=True)
    """The SHA-256 of name and digest, by which a second registration finds the first dataset.

    It is none while the dataset is hidden, and once it is deleted.
    """
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    num_sections: Mapped[int]
    num_masks: Mapped[int]
    num_images: Mapped[int]
    sections: Mapped[tuple[Section, ...]] = mapped_column(deferred=True)
    section_pixels: Mapped[list[Any]] = mapped_column(deferred=True, default=list)
    """For each section, the pixels of each class in its mask; none without a mask."""
    section_images: Mapped[list[Any]] = mapped_column(deferred=True, default=list)
    """For each section, the number of its images; those of the first section come first."""
    images_without: Mapped[list[Any]] = mapped_column(deferred=True, default=list)
    """For each class, the number of images whose mask has no pixel of it."""
    histogram: Mapped[Histogram | None] = mapped_column(deferred=True)
    """The grey values of the pixels that are data; none for a dataset of an earlier version."""
    description: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    """The fields of the request that say how its files were read; none as above."""
    notes: Mapped[tuple[Note, ...]] = mapped_column(deferred=True, default=())
    """The facts that the owner has to know."""
    hidden: Mapped[bool] = mapped_column(default=False)
    """True while the rows of its images are being written: no reader may see the dataset yet."""
    created_at: Mapped[datetime] = mapped_column(default=now_plus())
    deleted_at: Mapped[datetime | None]


class Image(Table):
    """An image, which has labels of its own: a section or a tile. ``n`` counts from 0."""

    __tablename__ = "images"
    __table_args__ = (Index("ix_images_points", "dataset_id", "n", **_only("points")),)

    dataset_id: Mapped[UUID] = mapped_column(ForeignKey(Dataset.id), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    section: Mapped[int]
    y0: Mapped[int]
    x0: Mapped[int]
    height: Mapped[int]
    width: Mapped[int]
    class_pixels: Mapped[list[Any] | None]
    """The number of pixels of each class in the mask; none without a mask."""
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The labels by class name, each present or absent; a class that is not named is unknown."""
    points: Mapped[list[Any] | None] = mapped_column(JsonOrNone)
    """The points in the image, each as y, x, class name, and present or absent; none without."""


class LabelChange(Table):
    """A change of a dataset's labels; the last one gives the labels their version."""

    __tablename__ = "label_changes"
    __table_args__ = (_one_of("kind", ChangeKind),)

    dataset_id: Mapped[UUID] = mapped_column(ForeignKey(Dataset.id), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    by: Mapped[str | None] = mapped_column(String(200))
    seconds: Mapped[float | None]
    """The time that somebody spent on the labels, as the client told it."""
    changed_images: Mapped[int] = mapped_column(default=0)
    changed_points: Mapped[int] = mapped_column(default=0)
    counts: Mapped[dict[str, Any] | None]
    """For each class, the number of images by label, after what this change has written so far.

    It is none for a change that an earlier version wrote.
    """
    complete: Mapped[bool] = mapped_column(default=False)
    """False while the labels are being written, and for ever if the writer was killed."""
    changed_at: Mapped[datetime] = mapped_column(default=now_plus())
    """The time at which labels were last written."""


class _Configured:
    """The columns of a row that keeps a configuration as it was written."""

    config: Mapped[dict[str, Any]]
    config_version: Mapped[int | None] = mapped_column(default=CONFIG_VERSION)
    """The version of the fields of ``config``; none if ``config`` is older than versions."""

    def usable_config(self) -> StyleFilterConfig:
        """Return the configuration in today's fields; ConfigUnusable if no job can run with it."""
        return upgraded(self.config, self.config_version)


class TrainedModel(_Configured, Table):
    """A trained model: the folder of its weights, and the job and data that it was made from."""

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
    """The pixel size at which the model sees images, in nanometres."""
    fingerprint: Mapped[str | None] = mapped_column(String(64), index=True)
    """A hash of data, configuration and code; none for models made before fingerprints existed."""
    created_at: Mapped[datetime] = mapped_column(default=now_plus())


class Job(_Configured, Table):
    """A job. This row alone says its state; each write of its worker names the ``attempt``."""

    __tablename__ = "jobs"
    __table_args__ = (
        _one_of("state", JobState),
        _one_of("kind", JobKind),
        _one_of("lane", Lane),
        Index("ix_jobs_state_created_at", "state", "created_at"),
        Index("ix_jobs_created_at_id", "created_at", "id"),
        # These indexes hold no ended job, so claims and the reconciler stay fast beside many.
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
    # These two are no foreign keys: models refer to jobs already, and SQLite lacks the ALTER that
    # a circle of tables needs.
    style_model_id: Mapped[UUID | None]
    segmenter_model_id: Mapped[UUID | None]
    parent_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), index=True
    )
    """The benchmark that the job is a part of."""
    plan: Mapped[dict[str, Any] | None]
    """The ``BenchmarkPlan``, ``BenchmarkPart``, ``ProbePlan`` or ``RegistrationPlan`` of a job of
    these kinds."""
    target_classes: Mapped[dict[str, Any] | None]
    """The source's class, or ``ignore``, for classes of the target that have other names."""
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
    """A worker takes the job with the highest priority first."""
    max_attempts: Mapped[int] = mapped_column(default=5)
    lost_attempts: Mapped[int] = mapped_column(default=0)
    """The attempts that were lost with their worker or trainer, since the job was last retried."""
    not_before: Mapped[datetime | None]
    """The time before which no worker may take an interrupted job."""

    attempt: Mapped[int] = mapped_column(default=0)
    """The number of the newest attempt; 0 before the first."""
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None]
    announcements: Mapped[int] = mapped_column(default=0)
    announce_at: Mapped[datetime | None]
    """The time at which the reconciler announces a waiting job again; none in other states."""
    created_at: Mapped[datetime] = mapped_column(default=now_plus())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    forgotten_at: Mapped[datetime | None]
    """The time at which the job's metrics and events were deleted because of their age."""

    @property
    def eta_seconds(self) -> float | None:
        """Return the seconds that the current stage will still take; None if that is unknown."""
        if self.state not in UNFINISHED or not self.steps_per_second:
            return None
        return (self.total - self.step) / self.steps_per_second


class JobDependency(Table):
    """The rule that job ``job_id`` waits for job ``needs_id``."""

    __tablename__ = "job_dependencies"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    needs_id: Mapped[UUID] = mapped_column(
        ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True, index=True
    )
    success: Mapped[bool] = mapped_column(default=True)
    """True if ``needs_id`` has to succeed; False if it only has to end."""


class JobEvent(Table):
    """An event of a job. It is written in the transaction of the change that it tells of."""

    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job_id_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(20))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now_plus())


class IdempotencyKey(Table):
    """The key that a client gave a request, so that sending it twice makes one job or dataset."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_digest: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"))
    dataset_id: Mapped[UUID | None] = mapped_column(ForeignKey(Dataset.id, ondelete="CASCADE"))
    """The dataset that the request registered at once, without a job."""
    created_at: Mapped[datetime] = mapped_column(default=now_plus(), index=True)


class WebhookDelivery(Table):
    """A webhook that has not arrived yet. Its row is deleted when its receiver has taken it."""

    __tablename__ = "webhook_deliveries"

    event_id: Mapped[int] = mapped_column(
        ForeignKey(JobEvent.id, ondelete="CASCADE"), primary_key=True
    )
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime] = mapped_column(default=now_plus(), index=True)


class Publication(Table):
    """A copy of a job's results, at the address that the operator has set for results."""

    __tablename__ = "publications"
    __table_args__ = (Index("ix_publications_waiting", "next_at", **_only("next_at")),)

    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime | None] = mapped_column(default=now_plus())
    """The time of the next attempt; none once the copy is whole."""
    url: Mapped[str | None] = mapped_column(Text)
    """The address of the whole copy, without credentials; none before."""
    problem: Mapped[str | None] = mapped_column(Text)
    """The reason why the last attempt failed."""


class JobStage(Table):
    """The progress of one stage of a job, and the seconds that it took so far."""

    __tablename__ = "job_stages"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    stage: Mapped[str] = mapped_column(String(20), primary_key=True)
    position: Mapped[int]
    step: Mapped[int]
    total: Mapped[int]
    seconds: Mapped[float]
    finished: Mapped[bool] = mapped_column(default=False)


class MetricPoint(Table):
    """One value of a series: a loss or a validation DICE at a step of a stage."""

    __tablename__ = "metric_points"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    stage: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(250), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float]
