"""``stylefilter benchmark`` measures Table 1 for two folders, through the service's API."""

import json
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer
from pydantic import BaseModel, Field, ValidationError
from rich.console import Console

from app.cli.console import console
from app.cli.folder_upload import FolderError, send_folder
from app.cli.options import PRESET, SEED, SERVICE, SOURCE, TARGET
from app.cli.temporary_service import own_service
from app.cli.tile_side import LEAST_TILE_PX, default_tile_px
from app.cli.watch import end_of
from app.client.client import Client
from app.client.connection import ApiError, Unavailable
from app.errors import invalid_fields
from app.jobs.request_schemas import BenchmarkRequest
from app.jobs.schemas import JobRead
from app.tables import ENDED, JobState
from models.config import presets
from models.config.presets import PresetName
from models.data.files import written_aside
from models.table1.cells import Cell
from models.table1.methods import ROWS

POLL_SECONDS = 2.0
_FILES = ("report.json", "report.md", "report.html", "folds.json")
_SHOWN = re.compile(r"\]\(((?:charts/)?[a-z]+\.(?:svg|png))\)")
"""Finds the pictures that the Markdown report refers to."""
_STATE = "benchmark.json"


_CONFIG = typer.Option(
    exists=True,
    dir_okay=False,
    help="A JSON file with the fields of the preset to change, and no others.",
)
_ROW = typer.Option(
    "--row",
    help="A row of the table. Give the option once for each row; without it all rows are measured. "
    f"The rows are {', '.join(ROWS)}.",
)
_LABELLED_TILE_PX = typer.Option(
    "--tile-px",
    min=LEAST_TILE_PX,
    help="The side of a tile, in pixels. A tile is a square part of a target image that has labels "
    "of its own. The labels are read off the target's masks. Without this option it is 128, or "
    "less if a crop of the training cannot hold such a tile.",
)
_FOLDS = typer.Option(
    min=1, max=20, help="The number of folds: how often each method is trained and tested."
)
_ONLY_FOLDS = typer.Option(
    "--fold",
    min=1,
    max=20,
    help="The number of a fold to measure, from 1. Give the option once for each; without it all "
    "folds are measured.",
)
_SEEDS = typer.Option(
    "--seeds",
    min=0,
    max=2**31 - 1,
    help="A seed to train with. Give the option once for each seed; every method is trained with "
    "each of them in each fold.",
)
_LABEL_TILE = typer.Option(
    "--label-tile",
    help="Another side of tiles, in pixels. StyleFilter is measured with the labels of such tiles "
    "too. Give the option once for each side.",
)
_NUM_LABELS = typer.Option(
    min=0,
    help="A smaller number of labelled training tiles. The rows rounds, rounds-target, rounds-area "
    "and chosen are measured with so many labels too. Give the option once for each number.",
)
_LABEL_ORDER = typer.Option(
    "--label-order",
    help="The way to pick the tiles of --num-labels: random, or next, which is the order of "
    "`stylefilter labels next`. Give the option twice to measure both.",
)
_NUM_MASKS = typer.Option(
    min=1,
    help="A number of training masks of the target. The same rows are measured with so many masks "
    "in place of labels too. Give the option once for each number.",
)
_NUM_POINTS = typer.Option(
    min=1,
    help="A number of points, which are read off the target's training masks. The same rows are "
    "measured with so many points in place of labels too. Give the option once for each number.",
)
_EXCLUDE = typer.Option(
    help="A class to leave out of the table and of its mean DICE. Give the option once for each "
    "class."
)


@dataclass(frozen=True)
class TableOptions:
    """The options of the command; ``body`` is the body of the request, without its datasets."""

    source: Path
    target: Path
    body: dict[str, Any]
    out: Path
    url: str | None


class _State(BaseModel):
    """Remembers the datasets and the job of a benchmark, in the folder of its report."""

    asked: dict[str, Any]
    datasets: dict[str, UUID] = Field(
        {}, description="The datasets that are registered already, by role."
    )
    key: UUID = Field(
        default_factory=uuid4, description="The Idempotency-Key of the request for the benchmark."
    )
    job: UUID | None = None


def benchmark(  # noqa: PLR0913 - options of a command are its parameters
    source: Annotated[Path, SOURCE],
    target: Annotated[Path, TARGET],
    out: Annotated[Path, typer.Option(help="The folder to write the report to.")],
    preset: Annotated[PresetName, PRESET] = "quick",
    config: Annotated[Path | None, _CONFIG] = None,
    rows: Annotated[list[str] | None, _ROW] = None,
    folds: Annotated[int, _FOLDS] = 3,
    only_folds: Annotated[list[int] | None, _ONLY_FOLDS] = None,
    tile_px: Annotated[int | None, _LABELLED_TILE_PX] = None,
    label_tiles: Annotated[list[int] | None, _LABEL_TILE] = None,
    num_labels: Annotated[list[int] | None, _NUM_LABELS] = None,
    label_orders: Annotated[list[str] | None, _LABEL_ORDER] = None,
    num_masks: Annotated[list[int] | None, _NUM_MASKS] = None,
    num_points: Annotated[list[int] | None, _NUM_POINTS] = None,
    exclude: Annotated[list[str] | None, _EXCLUDE] = None,
    seed: Annotated[int | None, SEED] = None,
    seeds: Annotated[list[int] | None, _SEEDS] = None,
    url: Annotated[str | None, SERVICE] = None,
) -> None:
    """Measure Table 1 of the paper for two folders of images, and write a report.

    Each row of the table is a method. Each method is trained and tested in several folds; a fold is
    one way to divide the images into those to train on and those to test on. If the command is
    stopped, the same command goes on where it stopped. The folder cells of the report holds the
    results so far.
    """
    if seeds and seed is not None:
        raise typer.BadParameter("--seed and --seeds are given: remove one")
    fields = _config_fields(config, preset, seed)
    body: dict[str, Any] = {
        "preset": preset,
        "config": fields,
        "num_folds": folds,
        "tile_px": tile_px
        or default_tile_px(source, target, presets.preset(preset).changed(fields)),
        "label_tiles_px": label_tiles or [],
        "excluded": exclude or [],
    }
    # Left out unless given: a folder that an earlier version has begun does not hold them.
    given = {
        "rows": rows,
        "seeds": seeds,
        "only_folds": only_folds,
        "num_labels": num_labels,
        "label_orders": label_orders,
        "num_masks": num_masks,
        "num_points": num_points,
    }
    body |= {name: value for name, value in given.items() if value}
    _check(body)
    options = TableOptions(source=source, target=target, body=body, out=out, url=url)
    raise typer.Exit(run_table(options, console))


def _check(body: dict[str, Any]) -> None:
    """Refuse a wrong request before any folder is uploaded."""
    for row in body.get("rows", []):
        if row not in ROWS:
            raise typer.BadParameter(f"--row {row} is no row: choose from {', '.join(ROWS)}")
    try:
        BenchmarkRequest.model_validate(body | {"source": uuid4(), "target": uuid4()})
    except ValidationError as error:
        raise typer.BadParameter(invalid_fields(error.errors()).detail) from error


def _config_fields(path: Path | None, name: PresetName, seed: int | None) -> dict[str, Any]:
    """Read the fields of a preset that a file changes, and refuse those that do not suit it."""
    try:
        fields = {} if path is None else json.loads(path.read_text())
    except ValueError as error:
        raise typer.BadParameter(f"{path} holds no valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise typer.BadParameter(
            f'{path} holds no JSON object: write the fields to change, such as {{"seed": 1}}'
        )
    if seed is not None and "seed" in fields:
        raise typer.BadParameter(f"--seed is given, and {path} holds a seed too: remove one")
    if seed is not None:
        fields["seed"] = seed
    try:
        presets.preset(name).changed(fields)  # a mistake shows before any folder is uploaded
    except ValidationError as error:
        reason = invalid_fields(error.errors(), "config").detail
        raise typer.BadParameter(f"{path} does not suit preset {name}: {reason}") from error
    return fields


def run_table(options: TableOptions, console: Console) -> int:
    """Begin a benchmark, or go on with the one in the folder, and return the exit code."""
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            url = options.url or stack.enter_context(own_service(options.out, {})).url
            return _run(stack.enter_context(Client(url)), options, console)
    except (ApiError, FolderError, ValidationError) as error:
        console.print(f"[red]Stopped:[/red] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted. The same command goes on where this one stopped.")
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
        # A new benchmark repeats the parts that failed, and takes the models of the others over.
        state.key, state.job = uuid4(), None
        job_id = _submit(client, options, state)
    job = _follow(client, job_id, options.out / "cells", console)
    if job.state != JobState.SUCCEEDED:
        raise ApiError(end_of(job))
    (options.out / "charts").mkdir(exist_ok=True)
    shown = _SHOWN.findall(client.report(job_id, "report.md").decode())
    for name in (*_FILES, *shown):
        (options.out / name).write_bytes(client.report(job_id, name))
    console.print(f"Wrote {', '.join(str(options.out / name) for name in _FILES)}")
    return 0


def _asked(options: TableOptions) -> dict[str, Any]:
    return options.body | {"source": str(options.source), "target": str(options.target)}


def _begun(options: TableOptions) -> _State:
    """Return what an earlier call of this command remembered; FolderError if it was another one."""
    path, asked = options.out / _STATE, _asked(options)
    if not path.exists():
        return _State(asked=asked)
    try:
        state = _State.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise FolderError(f"{path} is damaged: delete it to begin anew") from error
    if state.asked == asked:
        return state
    if state.job is not None:
        raise FolderError(
            f"{options.out} holds a benchmark with other options: give the same options as then, "
            "or another folder with --out"
        )
    return _State(asked=asked)  # the other benchmark was never submitted


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
    _write(options, state)  # if the command is stopped now, the next one sends the same key
    try:
        state.job = client.benchmark(request, str(state.key)).id
    except Unavailable:
        raise
    except ApiError:
        (options.out / _STATE).unlink()  # after a refusal the user mends the folders first
        raise
    _write(options, state)
    return state.job


def _write(options: TableOptions, state: _State) -> None:
    with written_aside(options.out / _STATE) as draft:
        draft.write_text(state.model_dump_json(indent=1) + "\n")


def _follow(client: Client, job_id: UUID, cells: Path, console: Console) -> JobRead:
    """Print each part of the benchmark that starts or ends, until the benchmark has ended.

    The results of a part are written to the folder ``cells`` when it ends.
    """
    told: dict[UUID, JobState] = {}
    while True:
        for part in client.jobs(parent=job_id):
            if told.get(part.id) != part.state and part.state in (*ENDED, JobState.RUNNING):
                seconds = sum(stage.seconds for stage in part.stages)
                took = f" after {seconds:.0f} s" if part.state in ENDED else ""
                console.print(f"{part.kind} {part.part}: {part.state}{took}", highlight=False)
                if part.state == JobState.SUCCEEDED:
                    _keep(client, part, cells, console)
            told[part.id] = part.state
        job = client.job(job_id)
        if job.state in ENDED:
            return job
        time.sleep(POLL_SECONDS)


def _keep(client: Client, part: JobRead, folder: Path, console: Console) -> None:
    """Write the results of a part to its file in ``folder``."""
    try:
        content = client.cell(part.id)
    except Unavailable:
        raise
    except ApiError as error:  # a part that an earlier version has run
        console.print(f"Its results are not in {folder}: {error}", highlight=False)
        return
    folder.mkdir(exist_ok=True)
    with written_aside(folder / f"{Cell.model_validate_json(content).name}.json") as draft:
        draft.write_bytes(content)
