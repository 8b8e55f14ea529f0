"""``stylefilter datasets report`` and ``compare``: look at datasets before anything is trained."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table

from app.cli.connection import connected
from app.cli.console import console
from app.cli.options import RUNNING, SERVICE_URL
from app.inspection.schemas import Compatibility, DatasetInspection


def report(
    dataset: Annotated[UUID, typer.Argument(help="The id of the dataset.")],
    url: Annotated[str, RUNNING] = SERVICE_URL,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(
            help="A file to write the contact sheet to, as PNG: small pictures of the sections "
            "with their masks."
        ),
    ] = None,
) -> None:
    """Tell what a registered dataset holds, and what looks wrong."""
    with connected(url) as client:
        _print_report(client.inspect_dataset(dataset))
        if contact_sheet is not None:
            contact_sheet.write_bytes(client.contact_sheet(dataset))
            console.print(f"Wrote {contact_sheet}", highlight=False)


def compare(
    source: Annotated[UUID, typer.Argument(help="The id of the dataset with masks.")],
    target: Annotated[UUID, typer.Argument(help="The id of the dataset to adapt to.")],
    url: Annotated[str, RUNNING] = SERVICE_URL,
) -> None:
    """Compare two registered datasets as source and target before anything is trained."""
    with connected(url) as client:
        _print_comparison(client.compare_datasets(source, target))


def _print_report(found: DatasetInspection) -> None:
    low, high = found.intensity_window
    _say(
        f"{found.name}: {found.num_sections} sections, {found.num_masks} with a mask, "
        f"{found.num_images} images. A pixel is {found.pixel_size_nm:g} nm wide. The grey values "
        f"{low:g} and {high:g} ({found.dtype}) become black and white."
    )
    _say("Sections by split: " + ", ".join(f"{n} {name}" for name, n in found.splits.items()))
    table = Table("class", "pixels", "share", "images without it")
    for each in found.classes:
        table.add_row(
            each.name, str(each.pixels), f"{100 * each.share:.1f} %", str(each.images_without)
        )
    console.print(table)
    for first, second in found.touching_splits:
        _say(f"{first} and {second} are neighbours in two splits, with no section between them.")
    for remark in found.remarks:
        _say(f"{remark.where}: {remark.message}")
    if not found.remarks:
        _say("Nothing looks wrong.")


def _print_comparison(found: Compatibility) -> None:
    _say(f"Classes of both: {', '.join(found.shared_classes) or 'none'}")
    height, width = found.smallest_section_px
    _say(
        f"At the source's {found.working_nm:g} nm per pixel, the sides of the target's sections "
        f"change by the factor {found.target_size_factor:.3g}; the smallest becomes {height} x "
        f"{width} pixels."
    )
    if found.classes:
        table = Table("class", "grey, source", "grey, target", "nm thick, source", "nm, target")
        for each in found.classes:
            greys = f"{each.source_grey:.2f}", f"{each.target_grey:.2f}"
            widths = f"{each.source_thickness_nm:.3g}", f"{each.target_thickness_nm:.3g}"
            table.add_row(each.name, *greys, *widths)
        console.print(table)
    for finding in found.findings:
        _say(finding.message)
    if not found.findings:
        _say("Nothing was found that would spoil an adaptation.")
    for words in found.benefit.advice:
        _say(words)


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False)
