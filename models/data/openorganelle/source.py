"""The source of a dataset: which crops of which cell, from where, in which classes."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from models.config.base import FrozenConfig
from models.data.openorganelle.classes import ClassTable, load_classes


def _crop_name(given: object) -> object:
    return f"crop{given}" if isinstance(given, int) and not isinstance(given, bool) else given


def _table(given: object) -> object:
    """Load a table that a Path names. A string never names a file: requests hold strings."""
    return load_classes(given) if isinstance(given, Path) else given


CropName = Annotated[
    str,
    Field(max_length=13, pattern=r"^crop[0-9]{1,9}$", examples=["crop1"]),
    BeforeValidator(_crop_name),
]
_Part = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]


class OpenOrganelleSource(FrozenConfig):
    """Annotated crops of a cell of OpenOrganelle, in the layout of its public bucket."""

    kind: Literal["openorganelle"] = Field("openorganelle", description="The kind of source.")
    cell: _Part = Field(description="The name of the cell, such as `jrc_hela-2`.")
    classes: Annotated[Literal["paper"] | ClassTable, BeforeValidator(_table)] = Field(
        "paper", description="The classes: `paper` for those of the paper, or a class table."
    )
    crops: tuple[CropName, ...] | None = Field(
        None,
        min_length=1,
        max_length=10_000,
        description="The names of the crops, such as `crop1`, or their numbers. Without this field "
        "all crops that the place lists are taken.",
    )
    at: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="The folder or the web address of a copy. It holds `CELL/CELL.zarr` or "
        "`CELL.zarr`, or is that hierarchy itself. Without this field the public bucket is read.",
    )
    em: _Part = Field("fibsem-uint8", description="The name of the micrographs.")
    em_level: _Part = Field("s0", description="The level of the micrographs to read.")
    recon: _Part = Field("recon-1", description="The name of the reconstruction.")
    labels: Literal["reduced", "published"] = Field(
        "reduced",
        description="`reduced` reads the finest labels and reduces them to the voxels of the "
        "micrographs: each voxel has the class that most of its label voxels have. `published` "
        "reads the labels that were published at the voxels of the micrographs, which are an "
        "eighth of the data.",
    )

    @property
    def table(self) -> ClassTable:
        """The class table."""
        return load_classes("paper") if self.classes == "paper" else self.classes
