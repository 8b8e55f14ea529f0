"""``stylefilter datasets register`` and ``list``: bring data in, and see what is there."""

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.table import Column, Table

from app.cli.connection import connected
from app.cli.console import console
from app.cli.folder_upload import FolderError, described, inputs_of, request_of, send
from app.cli.options import RUNNING
from app.client.client import Client, Watch
from app.datasets.schemas import DatasetReport
from app.jobs.schemas import JobRead

_SERVICE = "http://127.0.0.1:8000"


def register(  # noqa: PLR0913 - options of a command are its parameters
    paths: Annotated[
        list[str],
        typer.Argument(
            help="A folder with images and perhaps masks, or files of images. With --on-service: "
            "a folder of the service's computer, or an address such as s3://bucket/folder."
        ),
    ],
    classes: Annotated[
        str | None,
        typer.Option(help="The names of the classes, with commas between them, by their ids."),
    ] = None,
    pixel_size_nm: Annotated[
        float | None,
        typer.Option(help="The width of a pixel in nanometres, if the files do not say it."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="A name for people; without it, that of the folder or file.")
    ] = None,
    tile_px: Annotated[
        int | None, typer.Option(help="The side of a tile that has labels of its own, in pixels.")
    ] = None,
    mask_value: Annotated[
        list[str] | None,
        typer.Option(
            help="What a value in the masks means, such as 128=myelin or 255=ignore; give it once "
            "for each value."
        ),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            help="The rectangle of each section that is registered: first row, first column, "
            "height and width, such as 0,0,512,552."
        ),
    ] = None,
    invert: Annotated[
        bool, typer.Option("--invert", help="Make bright pixels dark and dark ones bright.")
    ] = False,
    fields: Annotated[
        Path | None,
        typer.Option(help="A JSON file with more fields of the request, as POST /datasets has."),
    ] = None,
    on_service: Annotated[
        bool,
        typer.Option("--on-service", help="The service reads the folder itself; nothing is sent."),
    ] = False,
    url: Annotated[str, RUNNING] = _SERVICE,
) -> None:
    """Register images, and masks if there are any, as a dataset.

    A file meta.json in the folder may hold the same fields as the options, which prevail.
    """
    try:
        given = _given(classes, mask_value, crop, fields)
        plain = {"pixel_size_nm": pixel_size_nm, "name": name, "tile_px": tile_px}
        given |= {key: value for key, value in plain.items() if value is not None}
        given |= {"invert": True} if invert else {}
        with connected(url) as client:
            found = _on_service(client, paths, given) if on_service else _sent(client, paths, given)
    except FolderError as error:
        console.print("[red]Stopped:[/red]", end=" ")
        _say(str(error))
        raise typer.Exit(1) from error
    _print(found)


def list_datasets(url: Annotated[str, RUNNING] = _SERVICE) -> None:
    """List the registered datasets, newest first."""
    with connected(url) as client:
        table = Table(Column("id", min_width=36), "name", "sections", "masks", "nm", "classes")
        for each in client.datasets():
            counts = str(each.num_sections), str(each.num_masks), f"{each.pixel_size_nm:g}"
            table.add_row(str(each.id), each.name, *counts, ", ".join(each.class_names))
        console.print(table)


def _sent(client: Client, paths: list[str], given: dict[str, JsonValue]) -> DatasetReport:
    files = [Path(path) for path in paths]
    inputs = inputs_of(files)
    fields: dict[str, JsonValue] = {"name": files[0].resolve().name[:200]}
    if files[0].is_dir():
        fields |= described(files[0], inputs)
    request = request_of(fields | given, "what was given")
    return send(client, request, inputs, _progress())


def _on_service(client: Client, paths: list[str], given: dict[str, JsonValue]) -> DatasetReport:
    if len(paths) != 1:
        raise FolderError("--on-service takes one folder or address")
    fields: dict[str, JsonValue] = {"name": paths[0].rstrip("/").rpartition("/")[2][:200]}
    request = request_of(fields | {"folder": paths[0]} | given, "what was given")
    return client.register_folder(request, watch=_progress())


def _given(
    classes: str | None, values: list[str] | None, crop: str | None, fields: Path | None
) -> dict[str, JsonValue]:
    """Return the fields that the options give in words."""
    given: dict[str, JsonValue] = {} if fields is None else _fields_of(fields)
    if classes is not None:
        given["class_names"] = [name.strip() for name in classes.split(",")]
    if values:
        pairs = [value.partition("=") for value in values]
        wrong = [value for value, pair in zip(values, pairs, strict=True) if not pair[2]]
        if wrong:
            raise FolderError(f"--mask-value {wrong[0]!r}: write it as 128=myelin")
        given["mask_values"] = {value.strip(): name.strip() for value, _, name in pairs}
    if crop is not None:
        numbers = crop.split(",")
        if len(numbers) != 4 or not all(number.strip().isdigit() for number in numbers):
            raise FolderError(f"--crop {crop!r}: write four whole numbers, such as 0,0,512,552")
        sides = ("y0", "x0", "height", "width")
        given["crop"] = {side: int(n) for side, n in zip(sides, numbers, strict=True)}
    return given


def _fields_of(path: Path) -> dict[str, JsonValue]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FolderError(f"{path} holds no JSON: {error}") from error
    if not isinstance(found, dict):
        raise FolderError(f'{path} holds no object of fields, as in {{"tile_px": 128}}')
    return found


def _progress() -> Watch:
    said: set[int] = set()

    def watch(job: JobRead) -> None:
        if job.total and job.step not in said:
            said.add(job.step)
            _say(f"{job.step} of {job.total} sections")

    return watch


def _print(found: DatasetReport) -> None:
    _say(
        f"Registered {found.name!r}: {found.num_sections} sections, {found.num_masks} with a mask, "
        f"{found.num_images} images, {found.pixel_size_nm:g} nm per pixel ({found.pixel_size_from})"
    )
    for name, count in found.class_pixels.items():
        if found.num_masks:
            _say(f"  {name}: {count} pixels")
    for note in found.notes:
        _say(f"Note on {note.where}: {note.message}")
    _say(str(found.id))


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
