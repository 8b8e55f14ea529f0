"""Schema of the answers about trained models."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field, JsonValue

from app.tables import ModelKind
from models.config.presets import preset


class ModelRead(BaseModel):
    """A trained model, with the job, the datasets and the models that it was made from."""

    id: UUID = Field(description="The id of the model.")
    kind: ModelKind = Field(
        description="The kind of the model. `style` is CUT's generator, which stylises images of "
        "the target. `segmenter` segments, and was trained on the source "
        "alone. `stylefilter` is a segmenter that was adapted to the target. `baseline` is a "
        "segmenter that a benchmark trained by another method. `chosen` is the segmenter that the "
        "target's labels chose; it may be a copy of the one of the source alone."
    )
    job: UUID = Field(description="The id of the job that trained the model.")
    source: UUID = Field(description="The id of the source, which the model was trained on.")
    target: UUID | None = Field(
        description="The id of the target; none for a segmenter of the source alone."
    )
    style_model: UUID | None = Field(
        description="The id of the style model with which this model was adapted, if any."
    )
    segmenter_model: UUID | None = Field(
        description="The id of the segmenter whose weights this model started from, if any."
    )
    class_names: list[str] = Field(
        description="The names of the classes that the model tells apart, by class id."
    )
    config: JsonValue = Field(
        description="The configuration of its training, as it was stored in the fields of "
        "`config_version`.",
        examples=[preset("quick").model_dump(mode="json")],
    )
    config_version: int | None = Field(
        description="The version of the configuration's fields; none for a model that was made "
        "before configurations had versions."
    )
    metrics: JsonValue = Field(
        description="The last losses, the best validation DICE, the rule that chose the weights "
        "(`selected`) and the step that they are from.",
        examples=[{"dice/mean": 0.81, "selected": "target_val", "selected_step": 150}],
    )
    working_nm: float = Field(
        description="The pixel size at which the model sees images, in nanometres. Images with "
        "another pixel size are resampled to it."
    )
    created_at: datetime = Field(description="The time when the model was registered.")
