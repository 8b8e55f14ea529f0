"""Schemas of the answers about jobs."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.jobs.result import EvaluationRead, JobResult
from app.probes.schemas import ExpectedBenefit
from app.tables import JobKind, JobState, Lane
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig

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
    notes=["Labels: 96 of 96 training tiles are labelled."],
)


class JobError(BaseModel):
    """The reason why a job failed."""

    code: str = Field(
        description="A short name of the cause, for programs; later versions keep it.",
        examples=["worker_lost"],
    )
    message: str = Field(description="The cause in words.")
    traceback: str | None = Field(
        description="The place in the code where the job failed, or the end of the log of its last "
        "attempt."
    )


class StageRead(BaseModel):
    """The progress of one stage of a job. A stage is a part of the work, such as training CUT."""

    model_config = ConfigDict(from_attributes=True)

    stage: str = Field(
        description="The name of the stage. `style` trains CUT, `pretrain` trains the segmenter on "
        "the source, `stylise` stylises the target, `adapt` trains the "
        "segmenter on source and target, `evaluate` scores it by masks, `verdict` compares it with "
        "the source-only model by labels, and `probe` asks trained models about a target.",
        examples=["style"],
    )
    step: int = Field(description="The number of steps done.")
    total: int = Field(description="The number of steps of the whole stage.")
    seconds: float = Field(description="The seconds that the stage took so far, in all attempts.")
    finished: bool = Field(description="`true` once the stage is done.")


class StageEstimateRead(BaseModel):
    """The steps and the memory that one stage will take."""

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
    """The answer to a dry run: the steps, memory and disk that the job would take."""

    stages: list[StageEstimateRead] = Field(
        description="The stages in their order. They include stages whose model could be taken "
        "from an earlier job."
    )
    memory_bytes: int = Field(description="The most main memory that any stage needs.")
    gpu_memory_bytes: int = Field(
        description="The most memory that any stage needs on each GPU; 0 on a CPU."
    )
    disk_bytes: int = Field(description="The most disk space that the job needs at any time.")
    notes: list[str] = Field(
        description="Warnings: sentences about things that the service accepts, and that may be a "
        "mistake."
    )
    benefit: ExpectedBenefit | None = Field(
        description="What to expect of the adaptation. None for jobs that adapt nothing, and for a "
        "benchmark, which measures it."
    )
    config: StyleFilterConfig = Field(
        description="The whole configuration: the preset with the fields that the request changes."
    )


class PriorityChange(BaseModel):
    """Asks to change the priority of a job that has not ended."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"priority": 10}]})

    priority: int = Field(
        ge=-100,
        le=100,
        description="The new priority. A worker takes the waiting job with the highest priority.",
    )


class PartsRead(BaseModel):
    """The parts of a benchmark, counted. A part is a job for one training in one fold."""

    ended: int = Field(
        description="The number of parts that have succeeded, failed or been cancelled."
    )
    total: int = Field(description="The number of all parts of the benchmark.")


class PublicationRead(BaseModel):
    """A copy of a job's results, at the address that the operator has set for results."""

    model_config = ConfigDict(from_attributes=True)

    url: str | None = Field(
        description="The address of the copy; none until the copy is whole.",
        examples=["s3://results/em/0b0f4a0e-4f5c-4a57-8c6e-6a8f2a1f0c02"],
    )
    attempts: int = Field(description="The number of times that the service has begun to copy.")
    problem: str | None = Field(
        description="The reason why the last attempt failed; none once the copy is whole. The "
        "service tries again, after pauses of up to an hour."
    )


class JobRead(BaseModel):
    """A job: one run that the service does, such as an adaptation."""

    id: UUID = Field(description="The id of the job.")
    kind: JobKind = Field(
        description="The kind of the job, which is the last word of the path that it was sent to. "
        "`method` is a part of a benchmark that trains and tests one method in one fold."
    )
    state: JobState = Field(
        description="The state of the job. A `queued` job waits for a worker. An `interrupted` job "
        "has lost its worker and waits for another one. A `pausing` or `cancelling` job waits "
        "until its trainer has stopped."
    )
    lane: Lane = Field(
        description="The queue in which the job waits: for a worker that trains on a GPU "
        "(`gpu-train`), one that only evaluates on a GPU (`gpu-infer`), or one with a CPU (`cpu`)."
    )
    parent: UUID | None = Field(
        description="The id of the benchmark that this job is a part of, if any."
    )
    part: str | None = Field(
        description="The fold, the method and the size of the tiles that this part of a benchmark "
        "is for; none for a job that is no part.",
        examples=["fold 1: stylefilter, tiles of 128 px"],
    )
    parts: PartsRead | None = Field(
        description="The parts of a benchmark, counted; none for a job of another kind."
    )
    priority: int = Field(
        description="The priority of the job. A worker takes the waiting job with the highest "
        "priority."
    )
    after: list[UUID] = Field(
        description="The ids of the jobs that this one waits for. A benchmark waits for its parts."
    )
    attempt: int = Field(
        description="The number of times that a worker has taken the job. Each time is an attempt."
    )
    lost_attempts: int = Field(
        description="The number of attempts that were lost, because their worker or trainer "
        "crashed."
    )
    max_attempts: int = Field(description="The number of lost attempts after which the job fails.")
    not_before: datetime | None = Field(
        description="The time before which no worker may take an interrupted job."
    )
    stage: str | None = Field(
        description="The name of the stage that runs; none before the first, and none for a "
        "benchmark."
    )
    step: int = Field(description="The number of steps done in this stage.")
    total: int = Field(description="The number of steps of this stage.")
    steps_per_second: float | None = Field(description="The speed of this stage.")
    eta_seconds: float | None = Field(
        description="The seconds that this stage will still take at its present speed."
    )
    stages: list[StageRead] = Field(description="All stages that have begun, in their order.")
    error: JobError | None = Field(description="The reason why the job failed, if it has.")
    source: UUID | None = Field(description="The id of the source.")
    target: UUID | None = Field(
        description="The id of the target. For an evaluation it is the dataset that is scored."
    )
    models: list[UUID] = Field(
        description="The ids of the trained models that this job has made, or has taken from "
        "earlier jobs, in the order `style`, `segmenter`, `stylefilter`, `baseline`, `chosen`."
    )
    result: JsonValue = Field(
        description="The scores and notes that the job stored when it succeeded; none before.",
        examples=[_RESULT.model_dump(mode="json")],
    )
    published: PublicationRead | None = Field(
        description="The copy of the results at the operator's address for results; none if there "
        "is no such address, or before the job has succeeded."
    )
    config: JsonValue = Field(
        description="The whole configuration, as it was stored in the fields of `config_version`.",
        examples=[preset("quick").model_dump(mode="json")],
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
        description="The name of the series: a loss, the DICE of a class, or the mean DICE.",
        examples=["dice/mean"],
    )
    thinned: bool = Field(
        description="`true` if the series has more points than were asked for. It then holds the "
        "first point, the last, and some between them at even distances. A peak between two of "
        "these points is not shown."
    )
    steps: list[int] = Field(description="The step of each point.")
    values: list[float] = Field(description="The value of each point.")


class MetricsRead(BaseModel):
    """Losses and scores of a job."""

    series: list[Series] = Field(description="All series that were asked for.")
