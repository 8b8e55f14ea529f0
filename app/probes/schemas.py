"""Schemas of the answers that rest on a probe: of tiles to label next, sources and benefits."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from models.choice.probed import LeftOut
from models.choice.verdict import ClassVerdict, Interval, Verdict


class ProbeRead(BaseModel):
    """The latest probe of a dataset: which tiles and models it has seen, and which it has not."""

    job: UUID = Field(description="The id of the job.")
    finished_at: datetime = Field(description="The time when the probe ended.")
    age_seconds: float = Field(description="The time since then, in seconds.")
    num_models: int = Field(description="The number of models that it asked.")
    newer_models: int = Field(
        description="The number of segmenters that were registered after the probe was submitted: "
        "it knows nothing of them."
    )
    num_sections: int = Field(description="The number of training sections that it looked at.")
    of_sections: int = Field(description="The number of all training sections.")
    num_tiles: int = Field(description="The number of tiles in the sections that it looked at.")
    num_labelled: int = Field(
        description="The number of these tiles that have a label now. Labels that are newer than "
        "the probe count, too."
    )
    labelled_elsewhere: int = Field(
        description="The number of labelled training tiles in sections that it did not look at: "
        "they take no part in any score."
    )
    left_out: list[LeftOut] = Field(description="The models that it did not ask.")


class NextTile(BaseModel):
    """A tile to label."""

    image: int = Field(description="The number of the image in its dataset.")
    section: str = Field(description="The name of its section.")
    tile: int = Field(description="The number of the tile in its section, from 0.")
    told: float | None = Field(
        description="What a label of the tile would tell about which candidate is right, in bits: "
        "0 where all candidates agree, and up to 1 for each class. None for a tile that the probe "
        "did not look at."
    )
    classes: dict[str, float] = Field(
        description="The parts of `told` by class, the largest first. It is empty if `told` is "
        "none."
    )
    presence: dict[str, float] = Field(
        description="The mean probability, by the candidates, that the class is in the tile. It is "
        "empty if `told` is none."
    )


class SuggestedTile(BaseModel):
    """A size of tiles at which labels of a class tell most."""

    tile_px: int = Field(description="The side of such tiles, in pixels of this dataset.")
    told_by: Literal["labels", "source"] = Field(
        description="`labels`: estimated from the share of this dataset's tiles that are called "
        "present. `source`: measured in the masks of the source of the best model."
    )
    share: float | None = Field(
        description="The share of this dataset's labelled training tiles, at their present size, "
        "that are called present; none without labels of the class."
    )


class NextTiles(BaseModel):
    """The tiles to label next, and whether more labels are worth it."""

    items: list[NextTile] = Field(description="The tiles, the one to label first at the start.")
    num_unlabelled: int = Field(
        description="The number of training tiles without a label; `items` holds some of them."
    )
    num_labelled: int = Field(description="The number of training tiles with a label.")
    looked_at: int = Field(
        description="The number of the tiles without a label that the probe has looked at."
    )
    enough: bool | None = Field(
        description="`true` if more labels would hardly change which candidate is chosen, or if no "
        "tile is left. None if nobody can know, because there is no probe."
    )
    more: int | None = Field(
        description="The number of labels that would tell the candidates apart, if it is known."
    )
    reason: str = Field(description="The reason for `enough`, in words.")
    suggested_tile_px: dict[str, SuggestedTile] = Field(
        description="For each class, the size of tiles of which nearly half would show it. It is "
        "empty for a class of which nothing is known."
    )
    probe: ProbeRead | None = Field(
        description="The probe that the order rests on; none if there is none. The order then "
        "spreads the tiles over sections and grey values."
    )
    notes: list[str] = Field(description="Sentences about what to do, and what was not known.")


class SuggestedSource(BaseModel):
    """A source or model for a target, with its score."""

    source: UUID = Field(description="The id of the source.")
    source_name: str = Field(description="The name of the source.")
    source_deleted: bool = Field(
        description="`true` if the source was deleted. The model can still segment images."
    )
    model: UUID | None = Field(
        description="The id of the model that was asked; none for a source without one."
    )
    kind: str | None = Field(description="The kind of the model.")
    candidate: str | None = Field(
        description="The way to use the model that scored best, in words."
    )
    view: str | None = Field(
        description="The change of grey values that comes before the model in this way: `raw` "
        "(none), `inverted`, `stretched` or `histogram`."
    )
    statistics: str | None = Field(
        description="Whose statistics normalise the model's layers in this way: those of the "
        "`source` or the `target`."
    )
    loss: Interval | None = Field(
        description="The log-loss of the labels with its 95 % interval, by which sources are "
        "ranked: lower is better. None without labels."
    )
    gain: Interval | None = Field(
        description="How much lower the loss is than that of the model as it is, on its own; none "
        "if the model as it is scores best, or without labels."
    )
    balanced_accuracy: float | None = Field(
        description="The mean over the classes of the shares of present and absent tiles without "
        "an error; none if no class has tiles of both labels."
    )
    f1: float | None = Field(
        description="The mean over the classes of F1 of the tiles in which the class is found."
    )
    consistency: float | None = Field(
        description="How alike the predictions of turned and of noisy images are, from 0 to 1. It "
        "is measured if fewer than 60 tiles are labelled; without labels it alone ranks."
    )
    trained_on_labels: bool = Field(
        description="`true` if the model was adapted to this target: its labels flatter it."
    )
    classes: dict[str, ClassVerdict] = Field(
        description="The errors for each class of the model, counted in labelled tiles."
    )
    note: str = Field(description="What to know about this source, or to do, in words.")


class SuggestedSources(BaseModel):
    """Sources and models for a target, best first."""

    items: list[SuggestedSource] = Field(
        description="The models that the latest probe asked, best first, and then the sources of "
        "which no model was asked."
    )
    probe: ProbeRead | None = Field(description="The probe; none if there is none.")
    notes: list[str] = Field(description="Sentences about what to do, and what was not known.")


class ExpectedBenefit(BaseModel):
    """Tells what to expect of an adaptation, by the latest probe of the target."""

    probe: ProbeRead | None = Field(
        description="The probe; none if no probe has asked a segmenter of this source."
    )
    verdict: Verdict | None = Field(
        description="What the labels say of the source-only model in cheap views, compared with "
        "the model as it is. None without a probe. Nothing was trained for it, so training may "
        "gain more than any of these candidates, or less."
    )
    advice: list[str] = Field(description="What to do, in words.")
