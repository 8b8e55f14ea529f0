"""What the jobs routes take and give."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.jobs.config_changes import ConfigChanges
from app.jobs.result import EvaluationRead, JobResult
from app.tables import JobKind, JobState, Lane
from models.config import PresetName, StyleFilterConfig, preset
from models.data.splits import Folds
from models.table1.methods import ROWS, RowName

_SOURCE = "0b0f4a0e-4f5c-4a57-8c6e-6a8f2a1f0c01"
_TARGET = "0b0f4a0e-4f5c-4a57-8c6e-6a8f2a1f0c02"
_MODEL = "0b0f4a0e-4f5c-4a57-8c6e-6a8f2a1f0c03"
_RESULT = JobResult(
    evaluations=[
        EvaluationRead(
            method="StyleFilter",
            dataset=UUID(_TARGET),
            split="test",
            num_sections=4,
            dice={"background": 0.9, "mitochondrion": 0.6},
            mean_dice=0.75,
            confusion=[[900, 100], [100, 150]],
        )
    ],
    notes=["Labels: 96 of 96 training tiles labelled."],
)


class _Submission(BaseModel):
    """What holds for jobs of every kind."""

    priority: int = Field(0, ge=-100, le=100, description="Of waiting jobs the highest goes first.")
    after: list[UUID] = Field(
        [], max_length=100, description="Jobs that must have succeeded before this one begins."
    )
    max_attempts: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Attempts of a job that keeps losing its worker; none: the service's.",
    )
    webhook_url: str | None = Field(
        None,
        max_length=2000,
        description="Is told of each change of the job's state, in their order, by a POST signed "
        "as Standard Webhooks says; https or http, without a password, at a public address.",
    )


class _JobRequest(_Submission):
    preset: PresetName = Field("quick", description="Numbers to start from.")
    reuse: bool = Field(
        True, description="Take a stage that an earlier job trained alike; false trains it again."
    )
    config: ConfigChanges | None = Field(
        None, description="Fields given here replace those of the preset; the others stay."
    )


class AdaptRequest(_JobRequest):
    """The whole of StyleFilter: train CUT, pre-train the U-Net, adapt, evaluate."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "source": _SOURCE,
                    "target": _TARGET,
                    "preset": "quick",
                    "config": {"style": {"steps": 300}, "seed": 1},
                }
            ]
        },
    )

    source: UUID = Field(description="Dataset with masks.")
    target: UUID = Field(description="Dataset to adapt to, with image-level labels.")


class TrainStyleRequest(_JobRequest):
    """Train CUT alone: renders images of the target in the source's style."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"source": _SOURCE, "target": _TARGET, "preset": "quick"}]},
    )

    source: UUID
    target: UUID


class PretrainRequest(_JobRequest):
    """Train the U-Net on the source alone."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"source": _SOURCE, "preset": "quick"}]}
    )

    source: UUID


class StyleFilterRequest(_JobRequest):
    """Adapt a pre-trained segmenter with a trained style model.

    Source, target, architecture and pixel size come from the two models.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"style_model": _MODEL, "segmenter_model": _MODEL, "preset": "quick"}]
        },
    )

    style_model: UUID = Field(description="Trained model of kind style.")
    segmenter_model: UUID = Field(description="Trained model of kind segmenter.")


class EvaluateRequest(_Submission):
    """Score a trained model on the masked sections of a dataset, at their own pixel size."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"model": _MODEL, "dataset": _TARGET, "split": "test"}]},
    )

    model: UUID = Field(description="Trained model of kind segmenter or stylefilter.")
    dataset: UUID = Field(description="Dataset with masks in the split.")
    split: Literal["train", "val", "test"] = "test"
    stylise: bool = Field(True, description="Render images in the source's style first.")
    style_model: UUID | None = Field(
        None, description="Default: the style model the model was adapted with."
    )


class BenchmarkRequest(_JobRequest):
    """Table 1 for a pair of datasets: rows x folds, as jobs that share what they can."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"source": _SOURCE, "target": _TARGET, "preset": "quick", "num_folds": 3}]
        },
    )

    source: UUID = Field(description="Dataset with masks.")
    target: UUID = Field(description="Dataset to adapt to, with masks to score by.")
    rows: list[RowName] = Field(
        list(ROWS), min_length=1, description="Rows of the table; default: all of them."
    )
    num_folds: int = Field(
        3,
        ge=1,
        le=20,
        description="Repetitions of cross-validation: by the datasets' groups, else by blocks of "
        "sections with a gap between them.",
    )
    folds: Folds | None = Field(
        None, description="Published folds to use instead: `folds.json` of an earlier report."
    )
    tile_px: int | None = Field(
        None,
        ge=16,
        le=65536,
        description="Labels come from the target's masks, tile by tile of this side in native "
        "pixels, in an annotator's place; none: the labels that were given.",
    )
    label_tiles_px: list[Annotated[int, Field(ge=16, le=65536)]] = Field(
        [],
        max_length=8,
        description="Sides of tiles for which to measure what labels are worth.",
    )
    excluded: list[str] = Field([], description="Classes to leave out of the table and its means.")


class JobError(BaseModel):
    """Why a job failed: a stable code, and words."""

    code: str = Field(examples=["worker_lost"])
    message: str
    traceback: str | None = Field(description="Where it happened, or the end of the trainer's log.")


class StageRead(BaseModel):
    """How far one stage of a job is."""

    model_config = ConfigDict(from_attributes=True)

    stage: str = Field(examples=["style"])
    step: int
    total: int
    seconds: float
    finished: bool


class StageEstimateRead(BaseModel):
    """What one stage will take."""

    model_config = ConfigDict(from_attributes=True)

    stage: str = Field(examples=["style"])
    steps: int
    memory_bytes: int = Field(description="Peak of main memory, all processes together.")
    gpu_memory_bytes: int = Field(description="Peak of each GPU's memory; 0 on a CPU.")


class JobEstimate(BaseModel):
    """What a job would take, and that it fits: the answer to a dry run."""

    stages: list[StageEstimateRead] = Field(
        description="In their order; what an earlier job trained alike is counted too."
    )
    memory_bytes: int = Field(description="Of the stage that takes most.")
    gpu_memory_bytes: int
    disk_bytes: int = Field(description="The most that lies in the data folder at a time.")
    notes: list[str] = Field(description="What is allowed, but perhaps not meant.")
    config: StyleFilterConfig = Field(description="The preset with the request's own fields.")


class PriorityChange(BaseModel):
    """What may be changed of a job that has not ended."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"priority": 10}]})

    priority: int = Field(ge=-100, le=100)


class JobRead(BaseModel):
    """A job as its row says."""

    id: UUID
    kind: JobKind
    state: JobState
    lane: Lane = Field(description="What it needs of a worker.")
    parent: UUID | None = Field(description="The benchmark it is a part of.")
    part: str | None = Field(
        description="Which part.", examples=["fold 1: stylefilter, tiles of 128 px"]
    )
    priority: int
    after: list[UUID] = Field(description="Jobs it waits for; of a benchmark, its parts.")
    attempt: int = Field(description="How often a worker took it up; 0 before the first.")
    lost_attempts: int = Field(description="Attempts that lost their worker or trainer.")
    max_attempts: int
    not_before: datetime | None = Field(description="When an interrupted job may be taken up.")
    stage: str | None
    step: int
    total: int
    steps_per_second: float | None
    eta_seconds: float | None = Field(description="Of the current stage.")
    stages: list[StageRead]
    error: JobError | None
    source: UUID | None
    target: UUID | None
    models: list[UUID] = Field(description="Trained models this job made, and those it reused.")
    result: JsonValue = Field(
        description="What it measured, as it was stored; none before its end.",
        examples=[_RESULT.model_dump(mode="json")],
    )
    config: JsonValue = Field(
        description="Its configuration, as it was stored in the fields of `config_version`.",
        examples=[preset("quick").model_dump()],
    )
    config_version: int | None = Field(
        description="None for a job of before configurations had versions."
    )
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Series(BaseModel):
    """One loss or score over the steps of a stage."""

    stage: str
    name: str = Field(examples=["dice/mean"])
    thinned: bool = Field(
        description="Whether there are more points than were asked for. Then these are the first, "
        "the last, and a sample at even distances between them: real points, but a peak between "
        "two of them is not shown."
    )
    steps: list[int]
    values: list[float]


class MetricsRead(BaseModel):
    """All series of a job."""

    series: list[Series]
