"""What the event stream of a job carries."""

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from app.jobs.schemas import PartsRead
from app.tables import JobState


class _Recorded(BaseModel):
    """An event with a row, and so with an id to resume after."""

    id: int
    attempt: int = 0


class StateEvent(_Recorded):
    """The job went over to another state."""

    state: JobState
    code: str | None = None
    message: str | None = None


class StageEvent(_Recorded):
    """A stage is being prepared (step 0), begins, goes on in another attempt, or is done."""

    stage: str
    step: int
    total: int
    done: bool


class ValidationEvent(_Recorded):
    """DICE by class at a step of a stage, in [0, 1]."""

    stage: str
    step: int
    total: int
    scores: dict[str, float | None]


class PictureEvent(_Recorded):
    """What the networks make of a piece of an image now: ``GET /jobs/{id}/pictures/{name}``."""

    stage: str
    step: int
    total: int
    name: str


class PriorityEvent(_Recorded):
    """The job was given another priority."""

    priority: int


class ProgressEvent(BaseModel):
    """The job as its row says now; sent when that changed, never replayed."""

    state: JobState
    attempt: int
    stage: str | None
    step: int
    total: int
    seconds: float = Field(description="That the stage took so far, in all attempts.")
    steps_per_second: float | None
    eta_seconds: float | None
    losses: dict[str, float | None] = Field(description="The last of the stage.")
    parts: PartsRead | None = Field(None, description="Of a benchmark; none for other jobs.")


class LogEvent(BaseModel):
    """Lines that the trainer wrote; never replayed: ``GET /jobs/{id}/log`` has them."""

    attempt: int
    lines: list[str]
    skipped_bytes: int = Field(0, description="Left out before these lines: they were too many.")


EventRead = (
    StateEvent
    | StageEvent
    | ValidationEvent
    | PictureEvent
    | PriorityEvent
    | ProgressEvent
    | LogEvent
)

_KINDS: dict[str, TypeAdapter[EventRead]] = {
    "state": TypeAdapter(StateEvent),
    "stage": TypeAdapter(StageEvent),
    "validation": TypeAdapter(ValidationEvent),
    "picture": TypeAdapter(PictureEvent),
    "priority": TypeAdapter(PriorityEvent),
    "progress": TypeAdapter(ProgressEvent),
    "log": TypeAdapter(LogEvent),
}


def parse_event(kind: str, data: str) -> EventRead | None:
    """Return the event with this name and JSON; None for one of another version's kind or shape."""
    adapter = _KINDS.get(kind)
    try:
        return None if adapter is None else adapter.validate_json(data)
    except ValidationError:
        return None
