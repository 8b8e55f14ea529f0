"""``stylefilter measure training`` lets ``models.speed.measure`` measure, and shows its figures."""

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
            exists=True, file_okay=False, help="A checkout of the public CUT, to compare with."
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="The number of steps of which the median is shown.")
    ] = 5,
    cases: Annotated[
        list[str] | None,
        typer.Option(help="A case, such as 128x64 or pretrain-8; by default all are measured."),
    ] = None,
) -> None:
    """Measure the seconds and the memory of whole training steps on this computer.

    Each case runs in a process of its own. With --reference each CUT step takes turns with one of
    the public CUT.
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
    table = Table("CUT", "precision", "s/step", "reference", "ratio", "GB", "of its", "of peak")
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
            f"{result.fraction_of_peak:.0%} (done: {result.fraction_done:.0%})",
        )
    return table


def _stage_table(results: Sequence[StageResult]) -> Table:
    table = Table("stage-sections", "s/step", "at first", "waiting for data", "GB", "G passes")
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
