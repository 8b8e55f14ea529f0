"""Describes the result that a job stores in its row when it succeeds."""

from uuid import UUID

from pydantic import BaseModel, Field

from app.tables import ModelKind
from models.choice.probed import ProbeResult
from models.choice.verdict import Verdict

CELL = "cell.json"
"""The file in the folder of a benchmark's part that holds its results for the table."""


class EvaluationRead(BaseModel):
    """DICE of one method on the masks of a split.

    DICE measures how well predicted and true pixels of a class overlap, from 0 (not at all) to 1
    (fully). It is computed once, from the pixels of all sections together.
    """

    method: str = Field(description="The name of the method.", examples=["StyleFilter"])
    dataset: UUID = Field(description="The id of the dataset whose sections were scored.")
    split: str = Field(description="The split of these sections.")
    num_sections: int = Field(description="The number of these sections.")
    dice: dict[str, float | None] = Field(
        description="DICE of each class, in [0, 1]; none for a class that the masks lack."
    )
    mean_dice: float | None = Field(
        description="The mean of DICE over the classes that the masks have."
    )
    confusion: list[list[int]] = Field(
        description="Counts of pixels: a row for each true class, a column for each predicted one."
    )


class ReusedModel(BaseModel):
    """A trained model that was taken over instead of being trained again."""

    kind: ModelKind = Field(description="The kind of the model.")
    model: UUID = Field(description="The id of the model.")
    job: UUID = Field(description="The id of the job that trained it.")


class JobResult(BaseModel):
    """The scores or the dataset of a job that succeeded, and what a reader has to know."""

    evaluations: list[EvaluationRead] = Field([], description="The scores of each method.")
    reused: list[ReusedModel] = Field(
        [],
        description="The models that an earlier job had trained with the same data, labels, "
        "configuration and code.",
    )
    dataset: UUID | None = Field(
        None, description="The id of the dataset that a registration has made."
    )
    verdict: Verdict | None = Field(
        None,
        description="What the target's labels say of the models: whether one is better than the "
        "source-only model. None for jobs that adapt nothing.",
    )
    probe: ProbeResult | None = Field(
        None,
        description="What a probe has looked at. None for jobs of other kinds.",
    )
    notes: list[str] = Field([], description="Sentences that a reader of the result has to know.")
    changed: list[str] = Field(
        [],
        description="The changes of the configuration that made the job fit the GPU's memory, in "
        "words.",
    )
    peak_memory_bytes: int | None = Field(
        None,
        description="The most memory that the trainer used, in bytes: of the GPU or, without a "
        "GPU, main memory.",
    )
