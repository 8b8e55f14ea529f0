"""``stylefilter jobs verdict``: what the target's labels say of the models of a job."""

from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table

from app.cli.connection import connected
from app.cli.console import console
from app.cli.options import RUNNING, SERVICE_URL
from models.choice.verdict import CandidateVerdict, Interval, Rate


def verdict(
    job: Annotated[UUID, typer.Argument(help="The id of a job that has adapted a model.")],
    url: Annotated[str, RUNNING] = SERVICE_URL,
) -> None:
    """Show which model the labels speak for, and what to do."""
    with connected(url) as client:
        found = client.verdict(job)
    for words in (*found.verdict.findings, *found.verdict.advice):
        console.print(words, markup=False, highlight=False)
    if found.use is not None:
        console.print(
            f"Model to use: {found.use.model}"
            + (f", stylised by {found.use.style_model}" if found.use.stylise else ", not stylised"),
            highlight=False,
        )
    console.print(_table(found.verdict.candidates, found.verdict.num_tiles))


def _table(candidates: tuple[CandidateVerdict, ...], num_tiles: int) -> Table:
    table = Table(title=f"Errors in {num_tiles} labelled tiles")
    for heading in ("candidate", "gain", "class", "missed", "claimed"):
        table.add_column(heading)
    for candidate in candidates:
        first = candidate.title, _gain(candidate.gain)
        for name, each in candidate.classes.items():
            table.add_row(*first, name, _rate(each.misses), _rate(each.claims))
            first = "", ""
    return table


def _gain(gain: Interval | None) -> str:
    return "-" if gain is None else f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"


def _rate(rate: Rate) -> str:
    if not rate.of:
        return "-"
    return f"{rate.wrong} of {rate.of} ({100 * rate.low:.0f}-{100 * rate.high:.0f} %)"
