"""Describes a registration in the row of its job: the request, and the files that were sent."""

from pathlib import Path
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from app.datasets.registration import cell_place, folder_files
from app.datasets.schemas import DatasetCreate, OpenOrganelleCreate
from app.errors import Invalid, ProblemItem
from app.settings import Settings
from models.data.intake.findings import DomainRefused
from models.data.intake.inputs import InputFile, Inputs, given_files
from models.data.openorganelle.inputs import crop_inputs, description
from models.data.openorganelle.kept import kept_inputs
from models.data.openorganelle.plan import plan_crops
from models.data.readers.places import LocalPlace, placed


class UploadGone(ValueError):
    """The files of a registration are no longer there."""


class SentFile(BaseModel):
    """A file of an upload; ``path`` is relative to the folder of the upload."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["images", "masks"]
    name: str
    path: str
    tag: str
    """The SHA-256 of a file that came in a form, or the id of an upload."""

    def input(self, folder: Path) -> InputFile:
        """Return the file as an input, which messages call by its name."""
        return InputFile(f"{self.kind}/{self.name}", placed(folder / self.path))


class RegistrationPlan(BaseModel):
    """The request for a dataset, and its files, unless the request names a folder or a cell.

    ``previous`` is the dataset of which it becomes a new version. Such a plan may have no files at
    all: then the stored sections of that dataset are read.
    """

    model_config = ConfigDict(frozen=True)

    request: DatasetCreate | OpenOrganelleCreate
    files: tuple[SentFile, ...] = ()
    previous: UUID | None = None

    def check(self, settings: Settings) -> None:
        """Refuse a cell that may not be read; what costs more is left to ``read``."""
        if isinstance(self.request, OpenOrganelleCreate):
            cell_place(settings, self.request)

    def read(self, settings: Settings, upload: Path) -> tuple[DatasetCreate, Inputs]:
        """Return the dataset to register, with the images and masks to read.

        ``upload`` is the folder of the files sent, and of those fetched from far away, which
        another attempt finds there.

        Raises:
            Invalid: what the request names is not there, or may not be read.
            UploadGone: a file that was sent is not there.
        """
        if isinstance(self.request, OpenOrganelleCreate):
            return _of_cell(self.request, settings, upload)
        if self.request.folder is not None:
            return self.request, folder_files(settings, self.request.folder)
        for file in self.files:
            if not (upload / file.path).is_file():
                raise UploadGone(
                    f"the file {file.name!r} of the upload is no longer there: send the files again"
                )
        images, masks = (
            [file.input(upload) for file in self.files if file.kind == kind]
            for kind in ("images", "masks")
        )
        return self.request, given_files(images, masks)


def _of_cell(
    request: OpenOrganelleCreate, settings: Settings, upload: Path
) -> tuple[DatasetCreate, Inputs]:
    try:
        place = cell_place(settings, request)
        plan = plan_crops(request, place)
        near = isinstance(place, LocalPlace)
        inputs = crop_inputs(plan) if near else kept_inputs(plan, upload)
        return request.described(description(plan)), inputs
    except DomainRefused as error:
        items = [ProblemItem(where=each.where, message=each.message) for each in error.problems]
        raise Invalid(str(error), items) from error
