"""``stylefilter labels import``, ``export`` and ``derive``: labels from and to files, and masks."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from app.cli.connection import connected
from app.cli.console import console
from app.cli.options import RUNNING, SERVICE_URL
from app.labels.schemas import ChangeNote, DeriveRequest, LabelsSummary
from models.data.files import written_aside
from models.data.labels import LabelState
from models.data.sections import Split

DatasetArgument = Annotated[UUID, typer.Argument(help="The id of the dataset.")]
ByOption = Annotated[
    str | None,
    typer.Option("--by", help="The name of whoever gave the labels. Their history keeps it."),
]
SecondsOption = Annotated[
    float | None,
    typer.Option("--seconds", help="The time that was spent on the labels, in seconds."),
]
VersionOption = Annotated[
    str | None,
    typer.Option(
        "--if-version",
        help="The version of the labels that you know. If somebody has changed them since, nothing "
        "is written.",
    ),
]


def import_labels(  # noqa: PLR0913 - options of a command are its parameters
    dataset: DatasetArgument,
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="A table as a spreadsheet saves it (.csv), or the JSON of PUT "
            "/datasets/ID/labels (.json).",
        ),
    ],
    by: ByOption = None,
    seconds: SecondsOption = None,
    if_version: VersionOption = None,
    url: Annotated[str, RUNNING] = SERVICE_URL,
) -> None:
    """Label the images of a dataset from a file.

    The first line of a table names its columns: `image` (a number, or the name of a section or
    file), `number` or `section`, after `section` perhaps `tile`, and then classes. A cell holds 1
    if the class is **present** in the image, 0 if it is **absent**, and nothing if that is
    **unknown**. A class without a column keeps its labels. If a line is wrong, nothing is written.

    A table with the columns `section`, `y`, `x`, `class` and perhaps `label` holds **points**: a
    pixel is of a class, or is not (`label` 0). A point without a label in its cell is taken away.

    Only *absent* has an effect on StyleFilter: no pseudo-label takes a class that is absent.
    *Present* is used by other methods of the table of results, and for checks.
    """
    note = _note(by, seconds)
    with connected(url) as client:
        _show(client.put_labels(dataset, file, note, if_version))


def export_labels(
    dataset: DatasetArgument,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="The file to write, such as a.csv.")],
    points: Annotated[
        bool, typer.Option("--points", help="Write the points in the place of the labels.")
    ] = False,
    url: Annotated[str, RUNNING] = SERVICE_URL,
) -> None:
    """Write the labels of all images to a table that a spreadsheet and `labels import` read.

    A cell holds 1 if the class is **present** in the image, 0 if it is **absent**, and nothing if
    that is **unknown**.
    """
    with connected(url) as client:
        table = client.labels_table(dataset, points=points)
        with written_aside(file) as draft:
            draft.write_bytes(table)
    console.print(f"Wrote {file}", markup=False, highlight=False)


def derive_labels(  # noqa: PLR0913 - options of a command are its parameters
    dataset: DatasetArgument,
    min_pixels: Annotated[
        list[str] | None,
        typer.Option(
            help="The least number of pixels of a present class: one number for all classes, or "
            "CLASS=NUMBER, once for each class. By default one pixel is enough.",
        ),
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="The split whose images are labelled; without it, all images are."),
    ] = None,
    by: ByOption = None,
    seconds: SecondsOption = None,
    if_version: VersionOption = None,
    url: Annotated[str, RUNNING] = SERVICE_URL,
) -> None:
    """Label images by their masks: a class is **present** with enough pixels, else **absent**.

    The new labels replace those that the images had. Images without a mask keep theirs.
    """
    request = _derive_request(min_pixels or [], split)
    note = _note(by, seconds)
    with connected(url) as client:
        summary = client.derive_labels(dataset, request, note, if_version)
        _show(summary)
    for name, words in summary.notes.items():
        console.print(f"{name}: {words}", markup=False, highlight=False)


def _derive_request(min_pixels: list[str], split: Split | None) -> DeriveRequest:
    by_class = dict(text.rpartition("=")[::2] for text in min_pixels)
    given: object = by_class or 1
    if "" in by_class:
        if len(min_pixels) > 1:
            raise typer.BadParameter("give --min-pixels one number, or CLASS=NUMBER for classes")
        given = by_class[""]
    try:
        return DeriveRequest.model_validate({"min_pixels": given, "split": split})
    except ValidationError as error:
        raise _bad_option(error) from error


def _note(by: str | None, seconds: float | None) -> ChangeNote:
    try:
        return ChangeNote(by=by, seconds=seconds)
    except ValidationError as error:
        raise _bad_option(error) from error


def _bad_option(error: ValidationError) -> typer.BadParameter:
    first = error.errors()[0]
    option = str(first["loc"][0]).replace("_", "-")
    return typer.BadParameter(f"--{option}: {first['msg'].removeprefix('Value error, ')}")


def _show(summary: LabelsSummary) -> None:
    console.print(
        f"Labels of {summary.changed_images} images changed, and {summary.changed_points} points. "
        "The labels have the version "
        f"{summary.version} now.",
        highlight=False,
    )
    table = Table("class", *LabelState, "points", title="Images")
    for name, counts in summary.counts.items():
        points = sum(summary.points.get(name, {}).values())
        table.add_row(escape(name), *(str(counts[state]) for state in LabelState), str(points))
    console.print(table)
