"""`stylefilter benchmark adaptation`: Table 1 of two folders, through the service's API."""

import re
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel, Field, ValidationError
from rich.console import Console

from app.cli.folder_upload import FolderError, send_folder
from app.cli.temporary_service import own_service
from app.client import ApiError, Client, Unavailable
from app.jobs.schemas import BenchmarkRequest, JobRead
from app.tables import ENDED, JobState
from models.files import written_aside

_POLL_SECONDS = 2.0
_FILES = ("report.json", "report.md", "report.html", "folds.json")
_SHOWN = re.compile(r"\]\(((?:charts/)?[a-z]+\.(?:svg|png))\)")
"""The pictures that the Markdown report refers to."""
_STATE = "benchmark.json"


@dataclass(frozen=True)
class TableOptions:
    """What the command line says; ``body`` is of the request, its datasets left out."""

    source: Path
    target: Path
    body: dict[str, Any]
    out: Path
    url: str | None


class _State(BaseModel):
    """How far a benchmark has come that was begun in a folder."""

    asked: dict[str, Any]
    datasets: dict[str, UUID] = Field({}, description="That are registered: source, target.")
    key: UUID = Field(default_factory=uuid4, description="Submits it once.")
    job: UUID | None = None


def run_table(options: TableOptions, console: Console) -> int:
    """Begin a benchmark or go on with the one in the folder; the exit code."""
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            url = options.url or stack.enter_context(own_service(options.out, {})).url
            return _run(stack.enter_context(Client(url)), options, console)
    except (ApiError, FolderError, ValidationError) as error:
        console.print(f"[red]Stopped:[/red] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; the same command goes on from here.")
        return 130


def _run(client: Client, options: TableOptions, console: Console) -> int:
    state = _begun(options)
    job_id = state.job or _begin(client, options, state, console)
    job = client.job(job_id)
    if job.state == JobState.FAILED:
        client.retry(job_id)
    elif job.state == JobState.PAUSED:
        client.resume(job_id)
    elif job.state == JobState.SUCCEEDED and any(
        part.state == JobState.FAILED for part in client.jobs(parent=job_id)
    ):
        # What succeeded is taken over.
        state.key, state.job = uuid4(), None
        job_id = _submit(client, options, state)
    job = _follow(client, job_id, console)
    if job.state != JobState.SUCCEEDED:
        reason = job.error.message if job.error else "it was cancelled"
        raise ApiError(f"job {job.id} has {job.state}: {reason}")
    (options.out / "charts").mkdir(exist_ok=True)
    shown = _SHOWN.findall(client.report(job_id, "report.md").decode())
    for name in (*_FILES, *shown):
        (options.out / name).write_bytes(client.report(job_id, name))
    console.print(f"Wrote {', '.join(str(options.out / name) for name in _FILES)}")
    return 0


def _asked(options: TableOptions) -> dict[str, Any]:
    return options.body | {"source": str(options.source), "target": str(options.target)}


def _begun(options: TableOptions) -> _State:
    """What the folder says of this benchmark; FolderError if it is of another one."""
    path, asked = options.out / _STATE, _asked(options)
    if not path.exists():
        return _State(asked=asked)
    try:
        state = _State.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise FolderError(f"{path} is damaged: delete it to begin again") from error
    if state.asked == asked:
        return state
    if state.job is not None:
        raise FolderError(
            f"{path} is of another benchmark: give the same options, or another --out"
        )
    return _State(asked=asked)  # no job is known of the other one


def _begin(client: Client, options: TableOptions, state: _State, console: Console) -> UUID:
    tile_px = options.body.get("tile_px")
    for name, folder in (("source", options.source), ("target", options.target)):
        if name not in state.datasets:
            report = send_folder(client, folder, tile_px=tile_px if name == "target" else None)
            console.print(f"Registered {report.name!r}: {report.num_sections} sections")
            state.datasets[name] = report.id
            _write(options, state)
    return _submit(client, options, state)


def _submit(client: Client, options: TableOptions, state: _State) -> UUID:
    datasets = {name: str(dataset) for name, dataset in state.datasets.items()}
    request = BenchmarkRequest.model_validate(options.body | datasets)
    _write(options, state)  # who is stopped before the answer asks for the same job again
    try:
        state.job = client.benchmark(request, str(state.key)).id
    except Unavailable:
        raise
    except ApiError:
        (options.out / _STATE).unlink()  # refused: mended folders are to be registered anew
        raise
    _write(options, state)
    return state.job


def _write(options: TableOptions, state: _State) -> None:
    with written_aside(options.out / _STATE) as draft:
        draft.write_text(state.model_dump_json(indent=1) + "\n")


def _follow(client: Client, job_id: UUID, console: Console) -> JobRead:
    """Tell of each part that changes, until the benchmark has ended."""
    told: dict[UUID, JobState] = {}
    while True:
        for part in client.jobs(parent=job_id):
            if told.get(part.id) != part.state and part.state in (*ENDED, JobState.RUNNING):
                seconds = sum(stage.seconds for stage in part.stages)
                took = f" after {seconds:.0f} s" if part.state in ENDED else ""
                console.print(f"{part.kind} {part.part}: {part.state}{took}", highlight=False)
            told[part.id] = part.state
        job = client.job(job_id)
        if job.state in ENDED:
            return job
        time.sleep(_POLL_SECONDS)
