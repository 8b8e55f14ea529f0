"""The events in the stream of a job."""

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from app.jobs.schemas import PartsRead
from app.tables import JobState


class _Recorded(BaseModel):
    """An event that is stored. A client that comes back can ask for the events after its id."""

    id: int
    attempt: int = 0


class StateEvent(_Recorded):
    """The job has another state now. ``code`` and ``message`` say why, if it failed."""

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
    """The networks were scored; ``scores`` holds the DICE of each class, in [0, 1]."""

    stage: str
    step: int
    total: int
    scores: dict[str, float | None]


class PictureEvent(_Recorded):
    """A picture of the networks' outputs was stored: ``GET /jobs/{job_id}/pictures/{name}``."""

    stage: str
    step: int
    total: int
    name: str


class PriorityEvent(_Recorded):
    """The job was given another priority."""

    priority: int


class ProgressEvent(BaseModel):
    """The job has moved on. This event is not stored, so it is never sent again."""

    state: JobState
    attempt: int
    stage: str | None
    step: int
    total: int
    seconds: float = Field(description="The seconds that the stage took so far, in all attempts.")
    steps_per_second: float | None
    eta_seconds: float | None
    losses: dict[str, float | None] = Field(description="The latest losses of the stage.")
    parts: PartsRead | None = Field(
        None, description="The parts of a benchmark, counted; none for other jobs."
    )


class LogEvent(BaseModel):
    """The trainer wrote some lines. ``GET /jobs/{job_id}/log`` shows them again; no event does."""

    attempt: int
    lines: list[str]
    skipped_bytes: int = Field(
        0, description="The bytes that were left out before these lines, because they were many."
    )


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
    """Return the event of this name and JSON; None if this version does not know such an event."""
    adapter = _KINDS.get(kind)
    try:
        return None if adapter is None else adapter.validate_json(data)
    except ValidationError:
        return None


def read_events(lines: Iterable[str]) -> Iterator[EventRead]:
    """Yield the events in server-sent text, except those that this version does not know."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            event = parse_event(fields.get("event", ""), fields.get("data", ""))
            fields = {}
            if event is not None:
                yield event
