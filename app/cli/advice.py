"""``stylefilter labels next``, ``datasets sources`` and ``jobs probe``: what to do next."""

from typing import Annotated
from uuid import UUID

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.connection import connected
from app.cli.console import console
from app.cli.options import RUNNING, SERVICE_URL
from app.jobs.request_schemas import ProbeRequest
from app.probes.schemas import NextTiles, SuggestedSource

TargetArgument = Annotated[UUID, typer.Argument(help="The id of the dataset to adapt to.")]


def next_tiles(
    dataset: TargetArgument,
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="The largest number of tiles to show.")
    ] = 16,
    url: Annotated[str, RUNNING] = SERVICE_URL,
) -> None:
    """Show which tiles to label next, and whether more labels are worth it."""
    with connected(url) as client:
        found = client.next_tiles(dataset, limit)
    _say(_whether_enough(found))
    for words in found.notes:
        _say(words)
    for name, size in found.suggested_tile_px.items():
        _say(f"{name}: tiles of {size.tile_px} px would tell most, by the {size.told_by}.")
    table = Table("image", "section", "tile", "bits", "about", title="Tiles to label next")
    for item in found.items:
        about = next(iter(item.classes), "") if item.told else ""
        bits = "-" if item.told is None else f"{item.told:.2f}"
        row = str(item.image), escape(item.section), str(item.tile), bits, escape(about)
        table.add_row(*row)
    if found.items:
        console.print(table)


def sources(
    dataset: TargetArgument,
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="The largest number of sources to show.")
    ] = 100,
    url: Annotated[str, RUNNING] = SERVICE_URL,
) -> None:
    """Rank the registered sources and models for a target, by its latest probe."""
    with connected(url) as client:
        found = client.suggested_sources(dataset, limit)
    for words in found.notes:
        _say(words)
    table = Table("source", "model", "best way", "loss", "F1", title="Sources, best first")
    for item in found.items:
        table.add_row(escape(item.source_name), str(item.model or "-"), *_scores(item))
    if found.items:
        console.print(table)
    for item in found.items:
        _say(f"{item.source_name}: {item.note}")


def probe(
    target: TargetArgument,
    sections: Annotated[
        int, typer.Option(min=1, max=64, help="The most sections that are looked at.")
    ] = 8,
    url: Annotated[str, RUNNING] = SERVICE_URL,
) -> None:
    """Ask the trained models about a target, before anything is trained for it."""
    with connected(url) as client:
        job = client.submit_probe(ProbeRequest(target=target, max_sections=sections))
    _say(f"Job {job.id} waits. Watch it with: stylefilter jobs watch {job.id}")


def _whether_enough(found: NextTiles) -> str:
    told = {True: "Enough labels.", False: "More labels are worth it.", None: ""}[found.enough]
    counts = f"{found.num_labelled} training tiles have a label, {found.num_unlabelled} have none."
    return " ".join(filter(None, (counts, told, found.reason)))


def _scores(item: SuggestedSource) -> tuple[str, str, str]:
    loss = item.loss
    shown = "-" if loss is None else f"{loss.value:.3f} ({loss.low:.3f} to {loss.high:.3f})"
    return item.candidate or "-", shown, "-" if item.f1 is None else f"{item.f1:.2f}"


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False)
