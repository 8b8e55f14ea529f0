"""``stylefilter measure training`` runs ``models.speed.measure`` and shows its figures."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from app.cli.console import console
from app.cli.options import FIGURES
from models.speed.figures import Figures, StageResult, StyleResult


def training(
    out: Annotated[Path | None, FIGURES] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="A folder with the source code of the public CUT, to compare the speed with.",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="The number of steps to measure; the median is shown.")
    ] = 5,
    cases: Annotated[
        list[str] | None,
        typer.Option(
            help="A case to measure, such as 128x64 or pretrain-8. Give the option once for each "
            "case; without it all cases are measured."
        ),
    ] = None,
) -> None:
    """Measure the time and the memory of training steps on this computer.

    Each case runs in a process of its own. With --reference, steps of this project's CUT and of the
    public CUT take turns.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = out or Path(folder) / "figures.json"
        command = [sys.executable, "-m", "models.speed.measure", str(path), "--steps", str(steps)]
        command += ["--reference", str(reference.resolve())] if reference else []
        command += ["--cases", *cases] if cases else []
        if code := subprocess.run(command, check=False).returncode:
            raise typer.Exit(code)
        for table in tables(Figures.model_validate_json(path.read_bytes())):
            console.print(table)


def tables(figures: Figures) -> Iterator[Table]:
    """Yield a table of CUT and a table of the segmenter's stages, if they were measured."""
    if figures.style:
        yield _style_table(figures.style)
    if figures.stages:
        yield _stage_table(figures.stages)


def _style_table(results: Sequence[StyleResult]) -> Table:
    table = Table(
        "CUT case",
        "precision",
        "s a step",
        "public CUT, s",
        "speed-up",
        "peak memory, GB",
        "of public CUT's memory",
        "of peak speed",
    )
    for result in results:
        theirs = result.reference
        table.add_row(
            result.case,
            result.precision,
            f"{result.step.median:.2f}",
            f"{theirs.median:.2f}" if theirs else "",
            f"{result.speedup:.2f}x" if result.speedup else "",
            f"{result.step.peak_bytes / 1e9:.2f}",
            f"{result.memory_ratio:.0%}" if result.memory_ratio else "",
            f"{result.fraction_of_peak:.0%} (really computed: {result.fraction_done:.0%})",
        )
    return table


def _stage_table(results: Sequence[StageResult]) -> Table:
    table = Table(
        "stage-sections",
        "s a step",
        "first steps, s",
        "waiting for data",
        "peak memory, GB",
        "generator passes",
    )
    for result in results:
        table.add_row(
            result.case,
            f"{result.step.median:.3f}",
            f"{result.first_seconds:.3f}",
            f"{result.wait_share:.1%}",
            f"{result.step.peak_bytes / 1e9:.2f}",
            str(result.generator_passes),
        )
    return table
