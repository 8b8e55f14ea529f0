"""The figures of ``models.speed.measure`` as tables; the measuring itself needs torch."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from rich.table import Table


class Timing(BaseModel):
    """Seconds of a step, and bytes."""

    median: float
    least: float
    most: float
    peak_bytes: int


class StyleFigures(BaseModel):
    """A CUT step."""

    case: str
    precision: str
    step: Timing
    fraction_of_peak: float
    fraction_done: float
    reference: Timing | None
    speedup: float | None
    memory_ratio: float | None


class StageFigures(BaseModel):
    """A step of the segmenter's stages."""

    case: str
    step: Timing
    first_seconds: float
    wait_share: float
    generator_passes: int


class Figures(BaseModel):
    """What is shown of the file."""

    style: list[StyleFigures]
    stages: list[StageFigures]


def read_figures(path: Path) -> Figures:
    return Figures.model_validate_json(path.read_text())


def tables(figures: Figures) -> Iterator[Table]:
    """One of style transfer, one of the segmenter's stages; those that were measured."""
    if figures.style:
        yield _style_table(figures.style)
    if figures.stages:
        yield _stage_table(figures.stages)


def _style_table(results: list[StyleFigures]) -> Table:
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


def _stage_table(results: list[StageFigures]) -> Table:
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
