"""What the models routes give."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from app.tables import ModelKind
from models.config import StyleFilterConfig


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
    config: StyleFilterConfig
    metrics: dict[str, Any] = Field(
        description="Last losses, best validation DICE and what selected the weights."
    )
    working_nm: float = Field(
        description="Nanometres per pixel of the images that it sees; others are resampled."
    )
    created_at: datetime
