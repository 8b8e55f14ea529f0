"""Crops from far away as inputs of an intake: each is fetched when it is asked for, and kept.

An intake that begins anew, as that of a job whose worker was lost, goes on with the crops that are
kept in the folder already.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from models.data.intake.inputs import InputFile, Inputs
from models.data.openorganelle.fetch import FetchError, keep_crop
from models.data.openorganelle.inputs import CropInput, Kind, crop_inputs
from models.data.openorganelle.plan import Plan
from models.data.readers.limits import ImageError
from models.data.readers.places import placed
from models.data.readers.stack import Ask, Stack


def kept_inputs(plan: Plan, folder: Path) -> Inputs:
    """Return the images and masks of all crops, as ``crop_inputs``; nothing is fetched yet."""
    kinds: tuple[Kind, Kind] = ("images", "masks")
    images, masks = (
        [KeptCrop(CropInput(kind, plan, crop), folder) for crop in plan.crops] for kind in kinds
    )
    return Inputs(images, masks, crop_inputs(plan).passed_over)


@dataclass(frozen=True)
class KeptCrop:
    """The micrographs or the masks of a crop, read from the files in ``folder``."""

    far: CropInput
    folder: Path

    @property
    def name(self) -> str:
        return self.far.name

    @property
    def stem(self) -> str:
        return self.far.stem

    @contextmanager
    def open(self, ask: Ask) -> Iterator[Stack]:
        far = self.far
        try:
            path = keep_crop(far.plan, far.crop, self.folder)[far.kind]
        except FetchError as error:
            raise ImageError(str(error)) from error
        with (
            far.open(ask) as told,  # by itself this reads no voxel
            InputFile(self.name, placed(path)).open(ask) as stack,
        ):
            yield replace(told, sections=stack.sections)

    def again(self) -> None:
        return None
