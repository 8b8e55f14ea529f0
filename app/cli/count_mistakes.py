"""``stylefilter count-mistakes`` compares what a model predicts in tiles with their labels."""

import glob
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from uuid import UUID

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from app.cli.connection import connected
from app.cli.console import console
from app.cli.options import RUNNING, SERVICE_URL
from app.client.client import Client
from app.datasets.schemas import ImageRead
from app.labels.schemas import LabelsRead
from models.data.labels import LabelState

Mask = NDArray[np.uint8]
"""The class id of each pixel, (H, W)."""

_HEADINGS = ("split", "class", "labelled absent", "false alarms", "labelled present", "misses")


@dataclass
class Mistakes:
    """The tiles of a split that have a label of one class, and those where a model is wrong."""

    absent: int = 0
    false_alarms: int = 0
    present: int = 0
    misses: int = 0

    def add(self, label: LabelState, *, predicted: bool) -> None:
        """Count one tile."""
        if label == LabelState.ABSENT:
            self.absent += 1
            self.false_alarms += predicted
        elif label == LabelState.PRESENT:
            self.present += 1
            self.misses += not predicted


def count_mistakes(  # noqa: PLR0913 - options of a command are its parameters
    dataset: Annotated[UUID, typer.Argument(help="The id of the dataset whose tiles have labels.")],
    model: Annotated[UUID, typer.Argument(help="The id of a trained model that segments.")],
    images: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="The folder with the dataset's images, a file for each section.",
        ),
    ],
    stylise: Annotated[
        bool | None,
        typer.Option(
            help="Redraw each image in the source's style before it is segmented. Without this "
            "option that is done if the model was adapted with a style model."
        ),
    ] = None,
    min_pixels: Annotated[
        int, typer.Option(min=1, help="The least number of pixels of a class that is counted.")
    ] = 1,
    url: Annotated[str, RUNNING] = SERVICE_URL,
) -> None:
    """Count the mistakes of a model in labelled tiles, for each class and each split.

    A class that is predicted in a tile where it is absent is a false alarm. A class that is
    predicted nowhere in a tile where it is present is a miss. The command predicts each section
    that has a label as a whole, so a section has to be a file of its own: a section of a stack is
    `stack/0003.tif` in the folder.
    """
    counted: dict[tuple[str, str], Mistakes] = {}
    with connected(url) as client:
        sections = _labelled_sections(client, dataset)
        files = {name: _file_of(images, name) for name in sections}
        class_names = client.model(model).class_names
        fields = {"model": str(model), "dataset": str(dataset)}
        if stylise is not None:
            fields["stylise"] = str(stylise)
        for name, tiles in sections.items():
            predicted = client.predict(files[name], fields | {"section": name})
            mask = np.asarray(Image.open(io.BytesIO(predicted)))
            count(counted, tiles, mask, class_names, min_pixels=min_pixels)
    _show(counted, console)


def count(
    counted: dict[tuple[str, str], Mistakes],
    tiles: Iterable[tuple[ImageRead, LabelsRead]],
    mask: Mask,
    class_names: Sequence[str],
    *,
    min_pixels: int,
) -> None:
    """Add the tiles of one section, whose prediction is ``mask``, by split and class."""
    for tile, labels in tiles:
        part = mask[tile.y0 : tile.y0 + tile.height, tile.x0 : tile.x0 + tile.width]
        pixels = np.bincount(part.ravel(), minlength=len(class_names))
        for index, name in enumerate(class_names):
            label = labels.classes.get(name, LabelState.UNKNOWN)
            predicted = bool(pixels[index] >= min_pixels)
            counted.setdefault((tile.split, name), Mistakes()).add(label, predicted=predicted)


def _labelled_sections(
    client: Client, dataset: UUID
) -> dict[str, list[tuple[ImageRead, LabelsRead]]]:
    """Return the labelled tiles of each section that has any, with their labels."""
    sections: dict[str, list[tuple[ImageRead, LabelsRead]]] = {}
    for tile, labels in zip(client.images(dataset), client.labels(dataset), strict=True):
        if any(label != LabelState.UNKNOWN for label in labels.classes.values()):
            sections.setdefault(tile.section, []).append((tile, labels))
    if not sections:
        raise typer.BadParameter(f"dataset {dataset} has no labels: label some of its tiles first")
    return sections


def _file_of(folder: Path, section: str) -> Path:
    """Return the file of a section; BadParameter if there is none, or more than one."""
    found = sorted(folder.glob(f"{glob.escape(section)}.*"))
    if len(found) != 1:
        held = "no file" if not found else f"{len(found)} files"
        raise typer.BadParameter(f"{folder} holds {held} for section {section!r}: put one there")
    return found[0]


def _show(counted: dict[tuple[str, str], Mistakes], console: Console) -> None:
    table = Table(title="Tiles, and mistakes of the model in them")
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in _HEADINGS[:2] else "right")
    for (split, name), found in sorted(counted.items(), key=lambda item: item[0][0]):
        numbers = (found.absent, found.false_alarms, found.present, found.misses)
        table.add_row(split, name, *map(str, numbers))
    console.print(table)
