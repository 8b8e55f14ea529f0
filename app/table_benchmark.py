"""`stylefilter benchmark adaptation`: Table 1 of two folders, through the service's API."""

import json
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ValidationError
from rich.console import Console

from app.client import ApiError, Client
from app.folders import FolderError, send_folder
from app.jobs.schemas import BenchmarkRequest, JobRead
from app.own_service import own_service
from app.tables import ENDED, JobState

_POLL_SECONDS = 2.0
_FILES = ("report.json", "report.md", "report.html", "splits.json")
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
    """What a benchmark that was begun in a folder was asked for, and which job it is."""

    asked: dict[str, Any]
    job: UUID


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
    job_id = _begun(options) or _begin(client, options, console)
    job = client.job(job_id)
    if job.state == JobState.FAILED:
        client.retry(job_id)
    elif job.state == JobState.PAUSED:
        client.resume(job_id)
    elif job.state == JobState.SUCCEEDED and any(
        part.state == JobState.FAILED for part in client.jobs(parent=job_id)
    ):
        # What succeeded is taken over.
        job_id = _submit(client, options, str(job.source), str(job.target))
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


def _begun(options: TableOptions) -> UUID | None:
    path = options.out / _STATE
    if not path.exists():
        return None
    state = _State.model_validate_json(path.read_bytes())
    if state.asked != _asked(options):
        raise FolderError(
            f"{path} is of another benchmark: give the same options, or another --out"
        )
    return state.job


def _begin(client: Client, options: TableOptions, console: Console) -> UUID:
    tile_px = options.body.get("tile_px")
    datasets = {}
    for name, folder in (("source", options.source), ("target", options.target)):
        report = send_folder(client, folder, tile_px=tile_px if name == "target" else None)
        console.print(f"Registered {report.name!r}: {report.num_sections} sections")
        datasets[name] = str(report.id)
    return _submit(client, options, datasets["source"], datasets["target"])


def _submit(client: Client, options: TableOptions, source: str, target: str) -> UUID:
    datasets = {"source": source, "target": target}
    request = BenchmarkRequest.model_validate(options.body | datasets)
    job = client.benchmark(request)
    state = _State(asked=_asked(options), job=job.id)
    (options.out / _STATE).write_text(json.dumps(state.model_dump(mode="json"), indent=1) + "\n")
    return job.id


def _follow(client: Client, job_id: UUID, console: Console) -> JobRead:
    """Tell of each cell that changes, until the benchmark has ended."""
    told: dict[UUID, JobState] = {}
    while True:
        for cell in client.jobs(parent=job_id):
            if told.get(cell.id) != cell.state and cell.state in (*ENDED, JobState.RUNNING):
                seconds = sum(stage.seconds for stage in cell.stages)
                took = f" after {seconds:.0f} s" if cell.state in ENDED else ""
                console.print(f"{cell.kind} {cell.cell}: {cell.state}{took}", highlight=False)
            told[cell.id] = cell.state
        job = client.job(job_id)
        if job.state in ENDED:
            return job
        time.sleep(_POLL_SECONDS)
