"""Answers about jobs."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.jobs.result import EvaluationRead, JobResult
from app.tables import JobKind, JobState, Lane
from models.config import StyleFilterConfig, preset

_RESULT = JobResult(
    evaluations=[
        EvaluationRead(
            method="StyleFilter",
            dataset=UUID("0b0f4a0e-4f5c-4a57-8c6e-6a8f2a1f0c02"),
            split="test",
            num_sections=4,
            dice={"background": 0.9, "mitochondrion": 0.6},
            mean_dice=0.75,
            confusion=[[900, 100], [100, 150]],
        )
    ],
    notes=["Labels: 96 of 96 training tiles labelled."],
)


class JobError(BaseModel):
    """Why a job failed."""

    code: str = Field(
        description="A short name of the cause, the same in all versions.",
        examples=["worker_lost"],
    )
    message: str = Field(description="The cause in words.")
    traceback: str | None = Field(
        description="The place in the code where the job failed, or the end of the log of its last "
        "attempt."
    )


class StageRead(BaseModel):
    """How far one stage of a job is. A stage is a part of the work, such as training CUT."""

    model_config = ConfigDict(from_attributes=True)

    stage: str = Field(
        description="The name of the stage: `style` trains CUT, `pretrain` the U-Net, `stylise` "
        "renders the target in the source's style, `adapt` trains the U-Net on it, and `evaluate` "
        "scores.",
        examples=["style"],
    )
    step: int = Field(description="The number of steps done.")
    total: int = Field(description="The number of steps of the whole stage.")
    seconds: float = Field(description="The seconds that the stage took so far, in all attempts.")
    finished: bool = Field(description="`true` once the stage is done.")


class StageEstimateRead(BaseModel):
    """What one stage will take."""

    model_config = ConfigDict(from_attributes=True)

    stage: str = Field(description="The name of the stage.", examples=["style"])
    steps: int = Field(description="The number of steps of the stage.")
    memory_bytes: int = Field(
        description="The most main memory that the stage needs, in all its processes together."
    )
    gpu_memory_bytes: int = Field(
        description="The most memory that the stage needs on each GPU; 0 on a CPU."
    )


class JobEstimate(BaseModel):
    """What a job would take. This is the answer to a dry run: the job fits, and is not stored."""

    stages: list[StageEstimateRead] = Field(
        description="The stages in their order. A stage that an earlier job has trained is counted "
        "too."
    )
    memory_bytes: int = Field(description="The main memory of the stage that needs most.")
    gpu_memory_bytes: int = Field(
        description="The memory on each GPU of the stage that needs most; 0 on a CPU."
    )
    disk_bytes: int = Field(description="The most disk space that the job needs at any time.")
    notes: list[str] = Field(
        description="Sentences about what is allowed and may still be a mistake."
    )
    config: StyleFilterConfig = Field(
        description="The whole configuration: the preset with the fields that the request changes."
    )


class PriorityChange(BaseModel):
    """Another priority for a job that has not ended."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"priority": 10}]})

    priority: int = Field(
        ge=-100,
        le=100,
        description="The new place in the queue: a worker takes the highest priority first.",
    )


class PartsRead(BaseModel):
    """How far a benchmark is."""

    ended: int = Field(description="The number of parts that have succeeded, failed or stopped.")
    total: int = Field(description="The number of its parts.")


class JobRead(BaseModel):
    """A job: what it does, where it is, and what came of it."""

    id: UUID = Field(description="The id of the job.")
    kind: JobKind = Field(
        description="What the job does. `method` is a part of a benchmark that trains and tests "
        "one method on one fold."
    )
    state: JobState = Field(
        description="Where the job is. `queued` waits for a worker. `interrupted` has lost its "
        "worker and waits for another one. `pausing` and `cancelling` wait for the trainer to stop."
    )
    lane: Lane = Field(
        description="The queue in which the job waits: for a GPU that trains, for a GPU that "
        "evaluates, or for a CPU."
    )
    parent: UUID | None = Field(
        description="The id of the benchmark that this job is a part of, if any."
    )
    part: str | None = Field(
        description="What this job measures as a part of a benchmark.",
        examples=["fold 1: stylefilter, tiles of 128 px"],
    )
    parts: PartsRead | None = Field(
        description="The parts of a benchmark; none for a job of another kind."
    )
    priority: int = Field(
        description="The place in the queue: a worker takes the highest priority first."
    )
    after: list[UUID] = Field(
        description="The ids of the jobs that this one waits for; of a benchmark, its parts."
    )
    attempt: int = Field(
        description="The number of the attempt: how often a worker has taken the job, 0 before the "
        "first time."
    )
    lost_attempts: int = Field(
        description="The number of attempts that ended because their worker or trainer was lost."
    )
    max_attempts: int = Field(description="The number of lost attempts after which the job fails.")
    not_before: datetime | None = Field(
        description="The time from which on an interrupted job may be taken by another worker."
    )
    stage: str | None = Field(
        description="The name of the stage that runs; none before the first, and of a benchmark."
    )
    step: int = Field(description="The number of steps done in this stage.")
    total: int = Field(description="The number of steps of this stage.")
    steps_per_second: float | None = Field(description="The speed of this stage.")
    eta_seconds: float | None = Field(
        description="The seconds that this stage still takes, at its present speed."
    )
    stages: list[StageRead] = Field(description="All stages that have begun, in their order.")
    error: JobError | None = Field(description="The reason why the job failed, if it has.")
    source: UUID | None = Field(description="The id of the source.")
    target: UUID | None = Field(
        description="The id of the target; of an evaluation, of the dataset that is scored."
    )
    models: list[UUID] = Field(
        description="The ids of the trained models that this job made or took over."
    )
    result: JsonValue = Field(
        description="What the job measured, as it was stored at its end; none before.",
        examples=[_RESULT.model_dump(mode="json")],
    )
    config: JsonValue = Field(
        description="The whole configuration, as it was stored in the fields of `config_version`.",
        examples=[preset("quick").model_dump()],
    )
    config_version: int | None = Field(
        description="The version of the configuration's fields; none for a job that was made "
        "before configurations had versions."
    )
    created_at: datetime = Field(description="The time when the job was submitted.")
    started_at: datetime | None = Field(
        description="The time when a worker took the job for the first time."
    )
    finished_at: datetime | None = Field(
        description="The time when the job succeeded, failed or was cancelled."
    )


class Series(BaseModel):
    """One loss or score over the steps of a stage."""

    stage: str = Field(description="The name of the stage.")
    name: str = Field(
        description="The name of the series: a loss, or DICE of a class or of their mean.",
        examples=["dice/mean"],
    )
    thinned: bool = Field(
        description="`true` if there are more points than were asked for. Then the series has the "
        "first and the last point, and a sample of the others at even distances. All are real "
        "points, but a peak between two of them is not shown."
    )
    steps: list[int] = Field(description="The step of each point.")
    values: list[float] = Field(description="The value of each point.")


class MetricsRead(BaseModel):
    """Losses and scores of a job."""

    series: list[Series] = Field(description="All series that were asked for.")
