"""Judge what a probe found in a target: which model suits it best, and if more labels would help.

A probe is a job that asks trained models about some tiles of a target and trains nothing. Free of
torch.

Legend: T tiles, C classes of the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from pydantic import Field

from models.choice.judging import LEAST_GAIN, more_tiles
from models.choice.label_scores import LEAST_TILES, Evidence
from models.choice.looks import Look
from models.config.base import FrozenConfig
from models.data.labels import UNKNOWN
from models.labels_used.training_labels import SAYS_NOTHING

_LEAST_CONSISTENCY = 0.01


class LeftOut(FrozenConfig):
    """A model that a probe does not ask, and why."""

    model: UUID = Field(description="The id of the model.")
    reason: str = Field(description="The reason why the probe left it out, in words.")


class ProbePlan(FrozenConfig):
    """The models that a probe asks, and the most sections that it looks at."""

    models: tuple[UUID, ...]
    left_out: tuple[LeftOut, ...]
    max_sections: int


class ProbedModel(FrozenConfig):
    """A model that a probe has asked."""

    model: UUID = Field(description="The id of the model.")
    kind: str = Field(description="The kind of the model.")
    source: UUID = Field(description="The id of the source that it was trained on.")
    trained_on_labels: bool = Field(
        description="`true` if it was adapted to this target: its labels flatter the model."
    )
    loss: float | None = Field(
        description="The log-loss of the labels as they were at the time of the probe, of the "
        "model's best candidate; lower is better. None without labels."
    )
    consistency: float | None = Field(
        description="How alike the predictions of turned and of noisy images are, from 0 to 1, of "
        "the same candidate; none if there were enough labels to do without."
    )
    tile_nm: dict[str, float] = Field(
        description="For each class in the source's masks, the side of tiles of which nearly half "
        "show it, in nanometres."
    )


class ProbeResult(FrozenConfig):
    """Tells what a probe has looked at."""

    models: tuple[ProbedModel, ...] = Field(description="The models, best first.")
    left_out: tuple[LeftOut, ...] = Field(description="The models that were not asked.")
    num_sections: int = Field(description="The number of sections that were looked at.")
    of_sections: int = Field(description="The number of training sections of the target.")
    num_tiles: int = Field(description="The number of tiles in these sections.")
    num_labelled: int = Field(description="The number of these that were labelled at that time.")


@dataclass(frozen=True)
class Scored:
    """A look with the evidence of its labelled tiles, and what both are worth: lower is better.

    ``score`` is the log-loss of the labels or, without labels, of the consistency.
    """

    look: Look
    evidence: Evidence
    score: float


def scored(look: Look, evidence: Evidence) -> Scored:
    """Score a look by its labelled tiles; ``evidence`` is that of all its tiles."""
    labelled = evidence.of((evidence.labels != UNKNOWN).any(axis=1))
    score = labelled.loss()
    if score is None:
        score = -float(np.log(max(look.meta.consistency or 0.0, _LEAST_CONSISTENCY)))
    return Scored(look, labelled, score)


def best_of_each(looks: Sequence[Scored]) -> list[Scored]:
    """Return the best candidate of each model, best first."""
    best: dict[str, Scored] = {}
    for each in looks:
        known = best.get(each.look.meta.model)
        if known is None or each.score < known.score:
            best[each.look.meta.model] = each
    return sorted(best.values(), key=lambda each: each.score)


@dataclass(frozen=True)
class Enough:
    """Tells whether more labels would change the choice; ``more`` is how many of them would."""

    enough: bool
    reason: str
    more: int | None = None


def enough(looks: Sequence[Scored]) -> Enough:
    """Tell whether labels tell the best candidate of the best model from its others.

    A class that nearly all labels call present is left aside: tiles of this size cannot judge it.
    """
    best = best_of_each(looks)[0]
    names, evidence = best.look.meta.class_names, best.evidence
    if not len(evidence.labels):
        return Enough(False, "No tile that the probe looked at has a label.")
    if open_ := _open_classes(evidence):
        few = ", ".join(names[number] for number in open_)
        return Enough(
            False,
            f"Fewer than {LEAST_TILES} labels say present, or fewer than {LEAST_TILES} say absent, "
            f"of: {few}.",
        )
    wanted = 0
    for other in looks:
        if other is best or other.look.meta.model != best.look.meta.model:
            continue
        gain = best.evidence.gain_over(other.evidence)
        if gain is not None and not gain.told:
            wanted = max(wanted, more_tiles(gain, len(evidence.labels)) or 0)
    if wanted:
        return Enough(
            False,
            f"About {wanted} more labels would tell candidates apart whose losses differ by "
            f"{LEAST_GAIN} or more.",
            wanted,
        )
    return Enough(
        True,
        "More labels would hardly change which candidate is chosen: the losses of the others are "
        f"higher by more than chance, or differ by less than {LEAST_GAIN}. Training may still gain "
        "from more labels.",
    )


def _open_classes(evidence: Evidence) -> list[int]:
    """Return the classes that more labels could make fit to be judged."""
    found = []
    for number, (absent, present) in enumerate(evidence.counts.tolist()):
        told = absent + present
        everywhere = told >= 2 * LEAST_TILES and present / told >= SAYS_NOTHING
        if told and not evidence.judged[number] and not everywhere:
            found.append(number)
    return found
