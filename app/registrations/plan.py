"""Describes a registration in the row of its job: the request, and the files that were sent."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.datasets.registration import folder_files
from app.datasets.schemas import DatasetCreate
from app.settings import Settings
from models.data.inputs import InputFile, Inputs, given_files
from models.data.readers.places import placed


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
    """The request for a dataset, and its files, unless the request names a folder."""

    model_config = ConfigDict(frozen=True)

    request: DatasetCreate
    files: tuple[SentFile, ...] = Field(())

    def inputs(self, settings: Settings, upload: Path) -> Inputs:
        """Return the images and masks to read; ``upload`` is the folder of the files sent.

        Raises:
            Invalid: the folder of the request is not there, or may not be read.
            UploadGone: a file that was sent is not there.
        """
        if self.request.folder is not None:
            return folder_files(settings, self.request.folder)
        for file in self.files:
            if not (upload / file.path).is_file():
                raise UploadGone(
                    f"the file {file.name!r} of the upload is no longer there: send the files again"
                )
        images, masks = (
            [file.input(upload) for file in self.files if file.kind == kind]
            for kind in ("images", "masks")
        )
        return given_files(images, masks)
