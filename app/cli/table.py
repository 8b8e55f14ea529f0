"""``stylefilter table``: one report of several benchmarks of the same pair, without a service."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli.console import console

_FOLDERS = typer.Argument(
    exists=True,
    file_okay=False,
    help="Folders that `stylefilter benchmark` has written. Each holds the results of its parts in "
    "the folder cells, also if it was stopped before its end.",
)


def table(
    folders: Annotated[list[Path], _FOLDERS],
    out: Annotated[Path, typer.Option(help="The folder to write the report to.")],
) -> None:
    """Make one report of several benchmarks of the same pair.

    They may differ in rows, folds and seeds, and in nothing else. So a table can be measured in
    parts: on several computers, or one seed after another.
    """
    # A process of its own: only the worker knows how to write a report.
    command = [sys.executable, "-m", "worker.report", *map(str, folders), str(out)]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        console.print(f"[red]Stopped:[/red] {ended.stderr.strip()}", highlight=False)
        raise typer.Exit(1)
    console.print(f"Wrote {out / 'report.html'}, {out / 'report.md'}, {out / 'report.json'}")
