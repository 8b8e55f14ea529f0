"""The ``stylefilter`` command."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console

from app.cli.supervisor import WorkerProcess
from app.database import Database
from app.settings import Settings
from app.storage import Storage
from models import config as configs
from models.config import PresetName

cli = typer.Typer(
    help="Adapt organelle segmentation to a new electron microscope.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
benchmark = typer.Typer(help="Measure this machine.", no_args_is_help=True)
cli.add_typer(benchmark, name="benchmark")
jobs = typer.Typer(help="Jobs of a running service.", no_args_is_help=True)
cli.add_typer(jobs, name="jobs")
console = Console()

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@cli.command()
def migrate() -> None:
    """Bring the database schema to this version's."""
    settings = Settings()
    Database(settings.database).migrate()
    console.print("The database schema is up to date.")


@cli.command()
def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
) -> None:
    """Start the API and one worker, after migrating the database. Ctrl-C stops both."""
    from app.main import create_app

    settings = Settings()
    if host not in _LOOPBACK:
        console.print(
            f"[bold red]Warning:[/] whoever reaches {host} can use and delete everything: the "
            "service has no authentication. Put a proxy that asks who they are in front of it.\n"
            f"It answers to {host} and to the names in STYLEFILTER_ALLOWED_HOSTS."
        )
        allowed = (*settings.allowed_hosts, host.lower())
        settings = settings.model_copy(update={"allowed_hosts": allowed})
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    Storage(settings.data_folder)
    listener = listen(host, port)
    Database(settings.database).migrate()
    # uvicorn raises the signal that ended it once more: let that end in the `finally` below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    worker = WorkerProcess()
    try:
        address = f"http://{host}:{listener.getsockname()[1]}"
        console.print(f"StyleFilter Service: {address} (docs: {address}/docs). Ctrl-C stops it.")
        config = uvicorn.Config(
            lambda: create_app(settings),
            factory=True,
            log_level="warning",
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # uvicorn has shut down cleanly and raises the signal again
    finally:
        worker.stop()


@cli.command()
def demo(  # noqa: PLR0913 - options of a command are its parameters
    source: Annotated[
        Path | None, typer.Option(help="Folder with images/, masks/ and meta.json.")
    ] = None,
    target: Annotated[Path | None, typer.Option(help="The same, of the target.")] = None,
    preset: Annotated[PresetName, typer.Option(help="Numbers to train with.")] = "quick",
    tile_px: Annotated[int, typer.Option(help="Side of a labelled tile, pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    out: Annotated[Path, typer.Option(help="Where picture, table and data go.")] = Path("demo"),
    url: Annotated[str | None, typer.Option(help="A running service; default: start one.")] = None,
) -> None:
    """Adapt a source to a target through the HTTP API, and show what it brings.

    Without folders it makes a synthetic pair of microscopes.
    """
    from app.cli.demo import DemoOptions, run_demo

    if (source is None) != (target is None):
        raise typer.BadParameter("give both --source and --target, or neither")
    options = DemoOptions(
        source=source, target=target, preset=preset, tile_px=tile_px, seed=seed, out=out, url=url
    )
    raise typer.Exit(run_demo(options, console))


@jobs.command()
def watch(
    job: Annotated[UUID, typer.Argument(help="The job's id.")],
    url: Annotated[str, typer.Option(help="The service.")] = "http://127.0.0.1:8000",
) -> None:
    """Draw a job live until it has ended. Ctrl-C stops watching; the job goes on.

    The exit code is 0 for a job that succeeded, 1 failed, 3 cancelled, 2 if it cannot be watched.
    """
    from app.cli.watch import run_watch

    raise typer.Exit(run_watch(url, job, console))


@benchmark.command()
def adaptation(  # noqa: PLR0913 - options of a command are its parameters
    source: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Images and masks.")],
    target: Annotated[Path, typer.Option(exists=True, file_okay=False, help="The same.")],
    out: Annotated[Path, typer.Option(help="Takes the report; and the service's data, if own.")],
    preset: Annotated[PresetName, typer.Option(help="Numbers to start from.")] = "quick",
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="JSON of fields to replace.")
    ] = None,
    rows: Annotated[
        list[str] | None, typer.Option("--row", help="A row of the table; default: all.")
    ] = None,
    folds: Annotated[int, typer.Option(min=1, max=20, help="For cross-validation.")] = 3,
    tile_px: Annotated[int, typer.Option(min=16, help="Side of labelled tiles.")] = 128,
    label_tiles: Annotated[
        list[int] | None,
        typer.Option("--label-tile", help="Side of tiles for which to measure labels' worth."),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="A class to leave out.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Of all randomness; default: 0.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="A running service; default: its own.")] = None,
) -> None:
    """Measure the rows of the paper's Table 1 for a pair of folders, and write the report.

    Stopped, it goes on where it was when the same command is given again.
    """
    from app.cli.benchmark import TableOptions, run_table
    from app.errors import invalid_fields

    try:
        fields = json.loads(config.read_text()) if config is not None else {}
    except ValueError as error:
        raise typer.BadParameter(f"{config} is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise typer.BadParameter(f"{config} holds no JSON object")
    if seed is not None and "seed" in fields:
        raise typer.BadParameter(f"--seed is given, and {config} has a seed too: leave one out")
    if seed is not None:
        fields["seed"] = seed
    try:
        configs.preset(preset).changed(fields)  # before folders are sent in vain
    except ValidationError as error:
        reason = invalid_fields(error.errors(), "config").detail
        raise typer.BadParameter(f"{config} does not suit preset {preset}: {reason}") from error
    body = {
        "preset": preset,
        "config": fields,
        "num_folds": folds,
        "tile_px": tile_px,
        "label_tiles_px": label_tiles or [],
        "excluded": exclude or [],
    }
    if rows:
        body["rows"] = rows
    options = TableOptions(source=source, target=target, body=body, out=out, url=url)
    raise typer.Exit(run_table(options, console))


@benchmark.command()
def training(
    out: Annotated[Path | None, typer.Option(help="Takes all figures, as JSON.")] = None,
    reference: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Your checkout of the public CUT."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to take the median of.")] = 5,
    cases: Annotated[
        list[str] | None, typer.Option(help="Such as 128x64 or pretrain-8; default: all.")
    ] = None,
) -> None:
    """Time whole training steps, each case in its own process; against the reference if given."""
    from app.cli.measure.training import read_figures, tables

    with tempfile.TemporaryDirectory() as folder:
        figures = out or Path(folder) / "figures.json"
        command = [
            sys.executable,
            "-m",
            "models.speed.measure",
            str(figures),
            "--steps",
            str(steps),
        ]
        command += ["--reference", str(reference.resolve())] if reference else []
        command += ["--cases", *cases] if cases else []
        ended = subprocess.run(command, check=False).returncode
        if ended:
            raise typer.Exit(ended)
        for table in tables(read_figures(figures)):
            console.print(table)


@benchmark.command()
def claims(
    database_url: Annotated[
        str | None, typer.Option(help="An empty database; default: SQLite in a new folder.")
    ] = None,
    ended: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Ended jobs, 1000, 100000 and 1000000 by default."),
    ] = None,
    waiting: Annotated[int, typer.Option(min=2, help="Jobs to claim at each.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="Takes all figures, as JSON.")] = None,
) -> None:
    """Time the claim and the end of jobs that do nothing, beside more and more ended jobs.

    The database is filled and left so: give one that may be dropped.
    """
    from app.cli.measure.claims import measure, table

    with tempfile.TemporaryDirectory() as folder:
        url = database_url or f"sqlite:///{folder}/stylefilter.db"
        database = Database(Settings(database_url=url).database)
        database.migrate()
        try:
            figures = measure(database, ended or (1_000, 100_000, 1_000_000), waiting)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        finally:
            database.close()
    if out is not None:
        out.write_text(figures.model_dump_json(indent=2))
    console.print(table(figures))


@benchmark.command()
def streams(  # noqa: PLR0913 - options of a command are its parameters
    database_url: Annotated[
        str | None, typer.Option(help="An empty database; default: SQLite in a new folder.")
    ] = None,
    number: Annotated[int, typer.Option(min=1, max=500, help="Streams to open.")] = 200,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs to measure, one after the other.")] = 3,
    pairs: Annotated[int, typer.Option(min=2, help="Windows of each without and with.")] = 6,
    seconds: Annotated[float, typer.Option(min=0, help="Length of a window.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Takes all figures, as JSON.")] = None,
) -> None:
    """Time a small training and the API without and with many open event streams of its job.

    A service is started for it. The database is filled and left so: give one that may be dropped.
    """
    from app.cli.measure.streams import Plan, measure, table
    from app.client import ApiError

    plan = Plan(streams=number, jobs=jobs, pairs=pairs, seconds=seconds)
    try:
        figures = measure(database_url, plan)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    except ApiError as error:
        console.print(f"[red]Not measured:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
    if out is not None:
        out.write_text(figures.model_dump_json(indent=2))
    console.print(table(figures))


def listen(host: str, port: int) -> socket.socket:
    """Bind a TCP socket to the address, or refuse the options."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named. Without it each answer on a
    # kept-alive connection waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise typer.BadParameter(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}; choose --port"
        ) from error
    return listener


def main() -> None:
    """Entry point of the ``stylefilter`` command."""
    cli()


if __name__ == "__main__":
    main()
