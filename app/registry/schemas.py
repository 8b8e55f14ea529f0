"""What the models routes give."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field, JsonValue

from app.tables import ModelKind
from models.config import preset


class ModelRead(BaseModel):
    """A trained model, and what it was trained from."""

    id: UUID = Field(description="The id of the model.")
    kind: ModelKind = Field(
        description="What the model does. `style` renders images of the target in the source's "
        "style; `segmenter` segments and was trained on the source alone; `stylefilter` is a "
        "segmenter that was adapted to the target; `baseline` was adapted by another method."
    )
    job: UUID = Field(description="The id of the job that trained it.")
    source: UUID = Field(description="The id of the source.")
    target: UUID | None = Field(description="The id of the target, if it was trained on one.")
    style_model: UUID | None = Field(
        description="The id of the style model with which it was adapted, if any."
    )
    segmenter_model: UUID | None = Field(
        description="The id of the segmenter that it was adapted from, if any."
    )
    class_names: list[str] = Field(description="The names of the classes, in the order of ids.")
    config: JsonValue = Field(
        description="The configuration, as it was stored in the fields of `config_version`.",
        examples=[preset("quick").model_dump()],
    )
    config_version: int | None = Field(
        description="The version of the configuration's fields; none for a model that was trained "
        "before configurations had versions."
    )
    metrics: JsonValue = Field(
        description="The last losses, the best validation DICE, and what chose the weights.",
        examples=[{"dice/mean": 0.81, "selected": "target_val", "selected_step": 150}],
    )
    working_nm: float = Field(
        description="The nanometres per pixel of the images that the model sees; other images are "
        "resampled."
    )
    created_at: datetime = Field(description="The time when it was trained.")
