"""``stylefilter datasets fetch openorganelle`` copies annotated crops into a folder to register."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from app.cli.console import console
from models.data.intake.findings import DomainRefused
from models.data.openorganelle.classes import ClassTableError
from models.data.openorganelle.cost import Cost, cost
from models.data.openorganelle.fetch import Fetched, FetchError, fetch
from models.data.openorganelle.plan import Plan, plan_crops
from models.data.openorganelle.source import OpenOrganelleSource
from models.data.readers.places import PlaceError

_FAILED, _INTERRUPTED = 1, 130
_MB = 1e6
_MAX_RANGE = 1000


def openorganelle(  # noqa: PLR0913 - each parameter is an option of the command
    cell: Annotated[str, typer.Option(help="The name of the cell, such as jrc_hela-2.")],
    to: Annotated[
        Path, typer.Option(file_okay=False, help="The folder to write to; it is made if need be.")
    ],
    at: Annotated[
        str | None,
        typer.Option(
            help="The folder or web address of a copy. Without this option the public bucket of "
            "OpenOrganelle is read."
        ),
    ] = None,
    classes: Annotated[
        str,
        typer.Option(help="The classes: paper for those of the paper, or a YAML file of yours."),
    ] = "paper",
    crops: Annotated[
        str | None,
        typer.Option(
            help="The numbers of the crops, such as 1,54-59. Without this option all are taken."
        ),
    ] = None,
    em: Annotated[str, typer.Option(help="The name of the micrographs.")] = "fibsem-uint8",
    labels: Annotated[
        Literal["reduced", "published"],
        typer.Option(
            help="The labels: reduced reads the finest and takes the majority, published reads "
            "those at the pixel size of the micrographs, an eighth of the data."
        ),
    ] = "reduced",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be read, and how much.")
    ] = False,
) -> None:
    """Copy the annotated crops of a cell of OpenOrganelle into a folder.

    Each crop becomes a stack of sections along z, with masks in the classes of the class table. The
    folder registers like any other: its meta.json describes it. A call that was interrupted goes on
    when it is given again.
    """
    try:
        source = OpenOrganelleSource.model_validate(
            {
                "cell": cell,
                "at": at,
                "classes": classes if classes == "paper" else Path(classes),
                "crops": _numbers(crops),
                "em": em,
                "labels": labels,
            }
        )
    except (ValidationError, ClassTableError) as error:
        raise typer.BadParameter(_first(error)) from error
    raise typer.Exit(run_fetch(source, to, console, dry_run=dry_run))


def run_fetch(
    source: OpenOrganelleSource, folder: Path, console: Console, *, dry_run: bool = False
) -> int:
    """Fetch crops, or tell what that takes, and return the exit code."""
    try:
        plan = plan_crops(source)
        for name, why in plan.left_out.items():
            console.print(f"{name} is left out: it {why}", markup=False, highlight=False)
        if dry_run:
            for crop in plan.crops:
                _tell_notes(crop.name, crop.notes, console)
            console.print(cost_table(plan), highlight=False)
            return 0
        fetch(plan, folder, lambda done: _tell(done, console))
    except DomainRefused as error:
        for problem in error.problems:
            console.print(f"{problem.where} {problem.message}", style="red", markup=False)
        return _FAILED
    except (FetchError, PlaceError) as error:
        console.print(str(error), style="red", markup=False)
        return _FAILED
    except KeyboardInterrupt:
        console.print("Finished crops are kept: the same command goes on from them.")
        return _INTERRUPTED
    console.print(
        f"{folder} is complete. To register it: stylefilter datasets register {folder}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0


def cost_table(plan: Plan) -> Table:
    """Return a table of what reading each crop takes, and all crops together."""
    costs = {crop.name: cost(plan, crop) for crop in plan.crops}
    table = Table("crop", "sections", "height x width, px")
    for title in ("requests", "MB to read", "MB to store, at most", "files missing"):
        table.add_column(title, justify="right")
    for crop in plan.crops:
        depth, height, width = crop.box.shape
        table.add_row(crop.name, str(depth), f"{height} x {width}", *_cells(costs[crop.name]))
    total = Cost(
        num_requests=sum(each.num_requests for each in costs.values()),
        num_bytes=sum(each.num_bytes for each in costs.values()),
        exact=all(each.exact for each in costs.values()),
        num_missing=sum(each.num_missing for each in costs.values()),
        num_stored=sum(each.num_stored for each in costs.values()),
    )
    depth = sum(crop.box.shape[0] for crop in plan.crops)
    table.add_section()
    table.add_row(f"{len(costs)} crops", str(depth), "", *_cells(total))
    return table


def _cells(cost: Cost) -> list[str]:
    read = f"{'' if cost.exact else 'about '}{cost.num_bytes / _MB:.2f}"
    stored = f"{cost.num_stored / _MB:.2f}"
    return [str(cost.num_requests), read, stored, str(cost.num_missing)]


def _tell(done: Fetched, console: Console) -> None:
    record = done.record
    how = "kept" if done.kept else f"read {done.num_bytes / _MB:.2f} MB"
    console.print(
        f"{done.number} of {done.total}: {record.name}, {record.shape[0]} sections, {how}",
        markup=False,
        highlight=False,
    )
    _tell_notes(f"  {record.name}", record.notes, console)


def _tell_notes(name: str, notes: Sequence[str], console: Console) -> None:
    for note in notes:
        console.print(f"{name} {note}", markup=False, highlight=False)


def _numbers(crops: str | None) -> list[int | str] | None:
    """Return the crops of a list such as ``1,54-59``; what is no number is left to be refused."""
    if crops is None:
        return None
    found: list[int | str] = []
    for part in filter(None, re.split(r"[,\s]+", crops)):
        numbers = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        if numbers is None:
            found.append(part)
            continue
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if not first <= last < first + _MAX_RANGE:
            raise typer.BadParameter(f"{part} names no crop, or more than {_MAX_RANGE}")
        found += range(first, last + 1)
    return found


def _first(error: ValidationError | ClassTableError) -> str:
    if isinstance(error, ClassTableError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
