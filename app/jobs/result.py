"""What a job leaves in its row when it has ended."""

from uuid import UUID

from pydantic import BaseModel, Field

from app.tables import ModelKind


class EvaluationRead(BaseModel):
    """DICE of one method, pooled over a split by one confusion matrix."""

    method: str = Field(examples=["StyleFilter"])
    dataset: UUID
    split: str
    num_sections: int
    dice: dict[str, float | None] = Field(
        description="In [0, 1]; none for a class that the split's masks lack."
    )
    mean_dice: float | None = Field(description="Mean over the classes that occur.")
    confusion: list[list[int]] = Field(description="Pixels; rows truth, columns prediction.")


class ReusedModel(BaseModel):
    """A trained model that was taken over instead of being trained again."""

    kind: ModelKind
    model: UUID
    job: UUID = Field(description="The job that trained it.")


class JobResult(BaseModel):
    """What a finished job measured."""

    evaluations: list[EvaluationRead] = []
    reused: list[ReusedModel] = Field(
        [], description="Stages that an earlier job had trained alike: same data, config and code."
    )
    notes: list[str] = Field([], description="What the reader of the numbers must know.")
    changed: list[str] = Field(
        [], description="What of the config was changed to fit the GPU's memory, in words."
    )
    peak_memory_bytes: int | None = Field(
        None, description="Of the trainer's process since it started; on a GPU, of the GPU."
    )
