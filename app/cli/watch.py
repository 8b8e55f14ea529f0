"""``stylefilter jobs watch`` draws a bar for each stage of a job, and prints its events above."""

from types import TracebackType
from typing import Annotated, Self
from uuid import UUID

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from app.cli.console import console
from app.cli.options import RUNNING, SERVICE_URL
from app.client.client import Client
from app.client.connection import PATIENCE_SECONDS, ApiError
from app.jobs.event_schemas import (
    EventRead,
    LogEvent,
    ProgressEvent,
    StageEvent,
    StateEvent,
    ValidationEvent,
)
from app.jobs.schemas import JobRead, PartsRead
from app.tables import JobState

_EXIT_CODES = {JobState.SUCCEEDED: 0, JobState.FAILED: 1, JobState.CANCELLED: 3}
_NOT_WATCHED, _INTERRUPTED = 2, 130


def watch(
    job: Annotated[UUID, typer.Argument(help="The id of the job.")],
    url: Annotated[str, RUNNING] = SERVICE_URL,
) -> None:
    """Show the progress of a job until it has ended. Ctrl-C stops only the display.

    The exit code tells how the job ended: 0 if it succeeded, 1 if it failed, 3 if it was
    cancelled. It is 2 if the job cannot be watched, and 130 after Ctrl-C.
    """
    raise typer.Exit(run_watch(url, job, console))


def run_watch(url: str, job_id: UUID, console: Console) -> int:
    """Show the progress of a job until it has ended, and return the exit code."""
    try:
        with Client(url) as client:
            job = draw(client, job_id, console, in_words=True)
    except ApiError as error:
        console.print(f"[red]The job cannot be watched:[/red] {error}", highlight=False)
        return _NOT_WATCHED
    except KeyboardInterrupt:
        console.print(
            f"The display has stopped and the job goes on. To cancel the job, send POST "
            f"{url}/jobs/{job_id}/cancel"
        )
        return _INTERRUPTED
    return _EXIT_CODES.get(job.state, _NOT_WATCHED)  # a job without such a state was just retried


def draw(client: Client, job_id: UUID, console: Console, *, in_words: bool = False) -> JobRead:
    """Draw a bar for each stage of a job until its end; ``in_words`` prints its events too."""
    with _Stages(console) as stages:
        stages.take(client.job(job_id))
        for event in client.events(job_id):
            if isinstance(event, ProgressEvent):
                stages.go_on(event)
            elif in_words:
                for line in _words(event):
                    console.print(line, markup=False, highlight=False)
        job = client.job(job_id, patience_seconds=PATIENCE_SECONDS)
        stages.take(job)
    return job


def end_of(job: JobRead) -> str:
    """Say how a job ended that did not succeed."""
    if job.error is None:
        return f"job {job.id} was {job.state}"
    return f"job {job.id} {job.state}: {job.error.message}"


class _Stages:
    """Draws a bar for each stage."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[seconds]:>4.0f} s"),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        self._progress = Progress(*columns, console=console, refresh_per_second=2)
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def take(self, job: JobRead) -> None:
        """Draw all stages of a job."""
        for stage in job.stages:
            self._show(stage.stage, stage.step, stage.total, stage.seconds)
        self._show_parts(job.parts)

    def go_on(self, event: ProgressEvent) -> None:
        if event.stage is not None:
            self._show(event.stage, event.step, event.total, event.seconds, _note(event))
        self._show_parts(event.parts)

    def _show_parts(self, parts: PartsRead | None) -> None:
        """Show how many parts of a benchmark have ended."""
        if parts is not None:
            self._show("parts", parts.ended, parts.total, 0.0)

    def _show(self, stage: str, step: int, total: int, seconds: float, note: str = "") -> None:
        if stage not in self._bars:
            for bar in self._bars.values():
                self._progress.update(bar, note="")
            self._bars[stage] = self._progress.add_task(stage, seconds=0.0, note="")
        self._progress.update(
            self._bars[stage], completed=step, total=total, seconds=seconds, note=note
        )


def _note(event: ProgressEvent) -> str:
    parts = []
    if event.steps_per_second:
        parts.append(f"{event.steps_per_second:.3g} steps/s")
    if event.eta_seconds:
        parts.append(f"{event.eta_seconds:.0f} s left")
    parts += [f"{name} {_number(value)}" for name, value in event.losses.items()]
    return ", ".join(parts)


def _words(event: EventRead) -> list[str]:
    if isinstance(event, StateEvent):
        attempt = f", attempt {event.attempt}" if event.attempt else ""
        reason = f": {event.message}" if event.message else ""
        return [f"{event.state}{attempt}{reason}"]
    if isinstance(event, StageEvent):
        if event.done:
            return [f"{event.stage} is done"]
        if event.step == 0:
            return [f"{event.stage} is being prepared: {event.total} steps"]
        return [f"{event.stage} begins at step {event.step} of {event.total}"]
    if isinstance(event, ValidationEvent):
        scores = ", ".join(f"{name} {_number(value)}" for name, value in event.scores.items())
        return [f"{event.stage} validated at step {event.step}: {scores}"]
    if isinstance(event, LogEvent):
        return [f"  | {line}" for line in event.lines]
    return []


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
