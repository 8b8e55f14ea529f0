"""Requests for jobs: a class for each kind of job."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue

from app.jobs.config_changes import ConfigChanges
from models.config import PresetName
from models.data.splits import Folds
from models.table1.methods import ROWS, RowName

_SOURCE = "0b0f4a0e-4f5c-4a57-8c6e-6a8f2a1f0c01"
_TARGET = "0b0f4a0e-4f5c-4a57-8c6e-6a8f2a1f0c02"
_MODEL = "0b0f4a0e-4f5c-4a57-8c6e-6a8f2a1f0c03"

SourceId = Annotated[
    UUID, Field(description="The id of the source, a dataset with masks in its train split.")
]
TilePx = Annotated[int, Field(ge=16, le=65536)]


class _JobRequest(BaseModel):
    """Fields that a request for any kind of job has."""

    priority: int = Field(
        0,
        ge=-100,
        le=100,
        description="The place in the queue: of all waiting jobs, a worker takes one with the "
        "highest priority.",
    )
    after: list[UUID] = Field(
        [],
        max_length=100,
        description="The ids of jobs that have to succeed before this job begins.",
    )
    max_attempts: int | None = Field(
        None,
        ge=1,
        le=100,
        description="How often the job may lose its worker before it fails. An attempt is the time "
        "from when a worker takes the job until it ends or the worker is lost. Without this field "
        "the service's own number counts.",
    )
    webhook_url: str | None = Field(
        None,
        max_length=2000,
        description="An address that is told of each change of the job's state, in order: a POST "
        "that is signed as Standard Webhooks says. The URL begins with https:// or http://, holds "
        "no password, and its host has a public address.",
    )


class _TrainingRequest(_JobRequest):
    """Fields that a request for any job that trains has."""

    preset: PresetName = Field(
        "quick",
        description="The set of all training numbers to start from: `smoke` takes seconds and "
        "shows only that everything runs, `quick` takes minutes, `paper` has the numbers of the "
        "paper and needs a GPU.",
    )
    reuse: bool = Field(
        True,
        description="`true` takes over a trained stage of an earlier job if data, labels, "
        "configuration and code were the same; `false` trains every stage again.",
    )
    config: ConfigChanges | None = Field(
        None, description="The fields of the preset to change. The answer shows the whole result."
    )


def _examples(*examples: JsonValue) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": list(examples)})


class AdaptRequest(_TrainingRequest):
    """Asks for a whole adaptation: train CUT, pre-train the U-Net, run StyleFilter, evaluate."""

    model_config = _examples(
        {
            "source": _SOURCE,
            "target": _TARGET,
            "preset": "quick",
            "config": {"style": {"steps": 300}, "seed": 1},
        }
    )

    source: SourceId
    target: UUID = Field(
        description="The id of the target, the dataset to adapt to. Labels of its images say which "
        "classes are in them."
    )


class TrainStyleRequest(_TrainingRequest):
    """Asks for CUT alone, the network that renders images of the target in the source's style."""

    model_config = _examples({"source": _SOURCE, "target": _TARGET, "preset": "quick"})

    source: UUID = Field(description="The id of the source. Images are enough.")
    target: UUID = Field(description="The id of the target. Images are enough.")


class PretrainRequest(_TrainingRequest):
    """Asks for a U-Net, the network that segments, which is trained on the source alone."""

    model_config = _examples({"source": _SOURCE, "preset": "quick"})

    source: SourceId


class StyleFilterRequest(_TrainingRequest):
    """Asks to adapt a segmenter to the target of a style model.

    Source, target, architecture and pixel size come from the two models.
    """

    model_config = _examples({"style_model": _MODEL, "segmenter_model": _MODEL, "preset": "quick"})

    style_model: UUID = Field(
        description="The id of a trained model of kind `style`, which was trained for the target."
    )
    segmenter_model: UUID = Field(
        description="The id of a trained model of kind `segmenter`, which was trained on the same "
        "source."
    )


class EvaluateRequest(_JobRequest):
    """Asks to score a trained model on the sections of a dataset that have masks."""

    model_config = _examples({"model": _MODEL, "dataset": _TARGET, "split": "test"})

    model: UUID = Field(description="The id of a trained model that segments.")
    dataset: UUID = Field(
        description="The id of a dataset with the model's classes and with masks in the split. "
        "Sections are scored at the dataset's own pixel size."
    )
    split: Literal["train", "val", "test"] = Field(
        "test", description="The split whose sections are scored."
    )
    stylise: bool = Field(
        True, description="`true` renders each image in the source's style before it is segmented."
    )
    style_model: UUID | None = Field(
        None,
        description="The id of the style model that renders. Without this field it is the one with "
        "which the model was adapted.",
    )


class BenchmarkRequest(_TrainingRequest):
    """Asks for the paper's Table 1 of a pair of datasets: methods as rows, measured over folds.

    A row is a method. A fold is one way to divide the sections into those to train on and those to
    test on. The benchmark runs as many jobs, its parts, which share what they can.
    """

    model_config = _examples(
        {"source": _SOURCE, "target": _TARGET, "preset": "quick", "num_folds": 3}
    )

    source: UUID = Field(description="The id of the source, a dataset with masks.")
    target: UUID = Field(description="The id of the target, with masks to score by.")
    rows: list[RowName] = Field(
        list(ROWS), min_length=1, description="The rows to measure; without this field, all."
    )
    num_folds: int = Field(
        3,
        ge=1,
        le=20,
        # Version 0.1 called it ``num_splits``: its clients are still understood.
        validation_alias=AliasChoices("num_folds", "num_splits"),
        description="The number of folds. Sections of one group stay together; a dataset without "
        "groups is divided into blocks of neighbouring sections with a gap between them.",
    )
    folds: Folds | None = Field(
        None,
        validation_alias=AliasChoices("folds", "splits"),
        description="Published folds to use instead: the content of `folds.json` of an earlier "
        "report.",
    )
    tile_px: TilePx | None = Field(
        None,
        description="The side, in the target's own pixels, of square tiles whose labels are read "
        "off its masks, in an annotator's place. Without this field the labels of the dataset are "
        "used.",
    )
    label_tiles_px: list[TilePx] = Field(
        [],
        max_length=8,
        description="Further sides of such tiles: StyleFilter is measured with each, which shows "
        "how much is gained by more and smaller tiles.",
    )
    excluded: list[str] = Field(
        [], description="The names of classes to leave out of the table and of its means."
    )
