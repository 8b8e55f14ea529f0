"""What the models routes give."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field, JsonValue

from app.tables import ModelKind
from models.config import preset


class ModelRead(BaseModel):
    """A trained model and where it comes from."""

    id: UUID
    kind: ModelKind = Field(
        description="style: CUT's generator; segmenter: trained on the source only; stylefilter: "
        "a segmenter adapted to the target."
    )
    job: UUID
    source: UUID
    target: UUID | None
    style_model: UUID | None = Field(description="The style model it was adapted with.")
    segmenter_model: UUID | None = Field(description="The segmenter it was adapted from.")
    class_names: list[str]
    config: JsonValue = Field(
        description="Its configuration, as it was stored in the fields of `config_version`.",
        examples=[preset("quick").model_dump()],
    )
    config_version: int | None = Field(
        description="None for a model of before configurations had versions."
    )
    metrics: JsonValue = Field(
        description="Last losses, best validation DICE and what selected the weights.",
        examples=[{"dice/mean": 0.81, "selected": "target_val", "selected_step": 150}],
    )
    working_nm: float = Field(
        description="Nanometres per pixel of the images that it sees; others are resampled."
    )
    created_at: datetime
