"""Schemas of the requests for jobs, one for each kind of job."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
)

from app.jobs.config_changes import ConfigChanges
from models.config.presets import PresetName
from models.data.description import ClassName
from models.data.splits import Folds
from models.table1.methods import ROWS, RowName
from models.table1.plan import LabelOrder

_SOURCE = "0b0f4a0e-4f5c-4a57-8c6e-6a8f2a1f0c01"
_TARGET = "0b0f4a0e-4f5c-4a57-8c6e-6a8f2a1f0c02"
_MODEL = "0b0f4a0e-4f5c-4a57-8c6e-6a8f2a1f0c03"

SourceId = Annotated[
    UUID, Field(description="The id of the source, a dataset with masks in its train split.")
]
TargetClasses = Annotated[
    dict[ClassName, ClassName] | None,
    Field(
        min_length=1,
        max_length=255,
        description="What classes of the target are for this job: the name of a class of the "
        "source, or `ignore` to leave their pixels and labels out. Several may be one class. A "
        "class that is not named is the source's class of the same name, in whatever order.",
        examples=[{"Mito": "mitochondrion", "vesicle": "ignore"}],
    ),
]
MOST_PROBED = 8
"""The most models that one probe asks."""

TilePx = Annotated[int, Field(ge=16, le=65536)]


class _JobRequest(BaseModel):
    """Fields that a request for any kind of job has."""

    priority: int = Field(
        0,
        ge=-100,
        le=100,
        description="The priority of the job. A worker takes the waiting job with the highest "
        "priority, and of several the oldest.",
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
        description="The number of lost attempts after which the job fails. An attempt is one time "
        "that a worker runs the job; it is lost if its worker or trainer crashes. Without this "
        "field it is the service's setting STYLEFILTER_MAX_ATTEMPTS, 5 by default.",
    )
    webhook_url: str | None = Field(
        None,
        max_length=2000,
        description="The URL that receives a POST request, a webhook, for each change of the job's "
        "state. Each request is signed as https://www.standardwebhooks.com says. The URL begins "
        "with https:// or http://, holds no password, and its host has a public address or is one "
        "that the operator allows in STYLEFILTER_WEBHOOK_HOSTS.",
    )


class _TrainingRequest(_JobRequest):
    """Fields that a request for any job that trains has."""

    preset: PresetName = Field(
        "quick",
        description="The set of training numbers to start from. `smoke` takes seconds and only "
        "shows that everything runs, `quick` takes minutes, `best` trains longer on the source "
        "and lets the target's labels choose how to adapt, and `paper` has the numbers of the "
        "paper and needs a GPU.",
    )
    reuse: bool = Field(
        True,
        description="`true` takes models from earlier jobs instead of training them again, if "
        "data, labels, configuration and code were the same; `false` trains each model anew.",
    )
    config: ConfigChanges | None = Field(
        None,
        description="The fields of the preset to change. The answer shows the whole configuration.",
    )


def _examples(*examples: JsonValue) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": list(examples)})


class AdaptRequest(_TrainingRequest):
    """Asks for a whole adaptation of a segmentation model to a target."""

    model_config = _examples(
        {
            "source": _SOURCE,
            "target": _TARGET,
            "preset": "best",
            "config": {"adaptation": {"steps": 300}, "seed": 1},
        }
    )

    source: SourceId
    target: UUID = Field(
        description="The id of the target, the dataset to adapt to. Label its images first: the "
        "labels say which classes each image shows."
    )
    target_classes: TargetClasses = None


class TrainStyleRequest(_TrainingRequest):
    """Asks for a style model alone: CUT's network, which stylises images of the target."""

    model_config = _examples({"source": _SOURCE, "target": _TARGET, "preset": "quick"})

    source: UUID = Field(description="The id of the source. It needs no masks.")
    target: UUID = Field(description="The id of the target. It needs no masks and no labels.")
    target_classes: TargetClasses = None


class PretrainRequest(_TrainingRequest):
    """Asks for a segmenter, a U-Net, that is trained on the source alone."""

    model_config = _examples({"source": _SOURCE, "preset": "quick"})

    source: SourceId


class StyleFilterRequest(_TrainingRequest):
    """Asks to adapt a segmenter to a target, with models that earlier jobs have trained.

    Source, target, architecture and pixel size are those of the two models.
    """

    model_config = _examples({"style_model": _MODEL, "segmenter_model": _MODEL, "preset": "quick"})

    style_model: UUID = Field(
        description="The id of a trained model of kind `style`, which was trained for the target "
        "to adapt to."
    )
    segmenter_model: UUID = Field(
        description="The id of a trained model of kind `segmenter`, which was trained on the same "
        "source."
    )
    target_classes: TargetClasses = None


class EvaluateRequest(_JobRequest):
    """Asks to score a trained model on the sections of a dataset that have masks."""

    model_config = _examples({"model": _MODEL, "dataset": _TARGET, "split": "test"})

    model: UUID = Field(description="The id of a trained model that segments.")
    dataset: UUID = Field(
        description="The id of a dataset that has masks in the split. Sections are scored at the "
        "pixel size of the dataset."
    )
    target_classes: TargetClasses = None
    split: Literal["train", "val", "test"] = Field(
        "test", description="The split whose sections are scored."
    )
    stylise: bool | None = Field(
        None,
        description="`true` stylises each image before it is segmented; `false` leaves it as it "
        "is. Without this field it is stylised if `style_model` names a style model, or if the "
        "model was adapted with one.",
    )
    style_model: UUID | None = Field(
        None,
        description="The id of the style model that stylises. Without this field it is the one "
        "with which the model was adapted.",
    )


class ProbeRequest(_JobRequest):
    """Asks what trained models find in a target, before anything is trained for it.

    Each model predicts some sections as they are and in cheap views: inverted, with stretched
    contrast, and with the source's grey values. Labels of the target score the predictions.
    """

    model_config = _examples({"target": _TARGET}, {"target": _TARGET, "models": [_MODEL]})

    target: UUID = Field(description="The id of the dataset to adapt to.")
    models: list[UUID] | None = Field(
        None,
        min_length=1,
        max_length=MOST_PROBED,
        description="The ids of the models to ask. Without them the newest models are asked, one "
        f"of each kind and source, and at most {MOST_PROBED}.",
    )
    sources: list[UUID] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="The ids of sources: only their models are asked. Leave it out if `models` is "
        "given.",
    )
    target_classes: TargetClasses = None
    max_sections: int = Field(
        8,
        ge=1,
        le=64,
        description="The most training sections of the target that are looked at, evenly spread. "
        "There are fewer if they have more than 16 million pixels together.",
    )


class BenchmarkRequest(_TrainingRequest):
    """Asks for the paper's Table 1 for a pair of datasets: one row for each method.

    Each method is measured in several folds. A fold is one way to divide the sections into those to
    train on and those to test on. A benchmark consists of many jobs, its parts; rows that need the
    same training share one part.
    """

    model_config = _examples(
        {"source": _SOURCE, "target": _TARGET, "preset": "quick", "num_folds": 3}
    )

    source: UUID = Field(description="The id of the source, a dataset with masks.")
    target: UUID = Field(
        description="The id of the target, a dataset with masks, by which each row is scored."
    )
    target_classes: TargetClasses = None
    rows: list[RowName] = Field(
        list(ROWS),
        min_length=1,
        max_length=100,
        description="The rows to measure; without this field, all rows.",
    )
    num_folds: int = Field(
        3,
        ge=1,
        le=20,
        # Version 0.1 called this field ``num_splits``, and its clients still send that name.
        validation_alias=AliasChoices("num_folds", "num_splits"),
        description="The number of folds. Sections of one group stay together; a dataset without "
        "groups is divided into blocks of neighbouring sections with an unused section between "
        "them.",
    )
    only_folds: list[Annotated[int, Field(ge=1, le=20)]] = Field(
        [],
        max_length=20,
        description="The numbers of the folds to measure, from 1; without this field all folds. "
        "So a table can be measured in parts.",
    )
    seeds: list[Annotated[int, Field(ge=0, le=2**31 - 1)]] = Field(
        [],
        max_length=20,
        description="The seeds to train with. Each method is trained once with each seed in each "
        "fold; the report shows how much a score differs between them. Without this field the "
        "benchmark has one seed, that of the configuration.",
    )
    folds: Folds | None = Field(
        None,
        validation_alias=AliasChoices("folds", "splits"),
        description="The folds of an earlier benchmark, to use the same ones: the content of "
        "`folds.json` in its report.",
    )
    tile_px: TilePx | None = Field(
        None,
        description="The side of square tiles, in pixels of the target. With this field the labels "
        "of the tiles are derived from the target's masks, as an annotator would give them. "
        "Without it the labels of the dataset are used.",
    )
    label_tiles_px: list[TilePx] = Field(
        [],
        max_length=8,
        description="More sides of tiles. StyleFilter is measured with the labels of each size, "
        "to show how the scores depend on the size and the number of tiles; so are `rounds`, "
        "`rounds-target`, `rounds-area` and `chosen`, if they are among the rows and a crop can "
        "hold the tile.",
    )
    num_labels: list[Annotated[int, Field(ge=0, le=10**7)]] = Field(
        [],
        max_length=10,
        description="Smaller numbers of labelled training tiles. The rows `rounds`, "
        "`rounds-target`, `rounds-area` and `chosen` are also measured with so many labels, which "
        "are drawn at random, to show what a minute of annotation brings.",
    )
    label_orders: list[LabelOrder] = Field(
        ["random"],
        min_length=1,
        max_length=2,
        description="The ways to pick the tiles of `num_labels`: at random, or in the order of "
        "`GET /datasets/ID/next-tiles`, by the disagreement of candidates. Each is measured.",
    )
    num_masks: list[Annotated[int, Field(ge=1, le=1000)]] = Field(
        [],
        max_length=10,
        description="Numbers of training sections whose masks are used. The same rows are also "
        "measured with so many masks and without labels.",
    )
    num_points: list[Annotated[int, Field(ge=1, le=100_000)]] = Field(
        [],
        max_length=10,
        description="Numbers of points. The same rows are also measured with so many points and "
        "without other labels. The points are read off the target's training masks, in the tiles "
        "of `tile_px`.",
    )
    excluded: list[ClassName] = Field(
        [],
        max_length=255,
        description="The names of the source's classes to leave out of the table and of its mean "
        "DICE.",
    )

    @field_validator("seeds")
    @classmethod
    def _instead_of_the_configs(cls, seeds: list[int], info: ValidationInfo) -> list[int]:
        config = info.data.get("config")
        if seeds and config is not None and "seed" in config.root:
            raise ValueError("config.seed is given too: remove one of the two")
        return seeds
