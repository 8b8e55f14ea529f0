"""The inputs of a domain: files of a folder, files that were sent, or arrays.

Legend: N sections of a stack, H height, W width.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from models.data import names
from models.data.readers.formats import File, open_stack
from models.data.readers.limits import Array, ImageError, check_size, native
from models.data.readers.places import PlacedFile
from models.data.readers.stack import Ask, Stack


class Input(Protocol):
    """An image, a mask or a stack of either; messages call it by its ``name``."""

    @property
    def name(self) -> str: ...

    @property
    def stem(self) -> str:
        """Return the name that an image and its mask share."""

    def open(self, ask: Ask) -> AbstractContextManager[Stack]:
        """Open the stack of sections; raise ImageError if it, or later a section, is wrong."""

    def again(self) -> "Input | None":
        """Return the input to be opened beside itself; None if it holds a single array."""


@dataclass(frozen=True)
class InputFile:
    """A file of one of the formats, or the folder of a Zarr store."""

    name: str
    file: File

    @property
    def stem(self) -> str:
        return names.stem(self.name)

    def open(self, ask: Ask) -> AbstractContextManager[Stack]:
        return open_stack(self.file, ask)

    def again(self) -> "InputFile":
        if isinstance(self.file, Path | PlacedFile):
            return self
        data = self.file.read()  # an open file has one position
        self.file.seek(0)
        return InputFile(self.name, io.BytesIO(data))


@dataclass(frozen=True)
class InputArray:
    """A section (H, W) or a stack of sections (N, H, W) in memory."""

    name: str
    array: Array

    @property
    def stem(self) -> str:
        return names.stem(self.name)

    @contextmanager
    def open(self, ask: Ask) -> Iterator[Stack]:
        array = self.array
        if array.ndim not in (2, 3):
            raise ImageError(f"has the shape {array.shape}: give (H, W), or (N, H, W) for a stack")
        check_size((array.shape[-2], array.shape[-1]), ask.max_pixels)
        sections = array if array.ndim == 3 else [array]
        yield Stack(map(native, sections), len(sections))

    def again(self) -> None:
        return None


@dataclass(frozen=True)
class Inputs:
    """The images and the masks of a domain, in order; ``passed_over`` names what is neither."""

    images: Sequence[Input]
    masks: Sequence[Input] = ()
    passed_over: Sequence[str] = ()


def given_files(images: Sequence[InputFile], masks: Sequence[InputFile]) -> Inputs:
    """Return files that were given one by one, in the natural order of their names.

    Files that operating systems leave beside the user's, such as Thumbs.db, are passed over.
    """
    passed_over = [given.name for given in (*images, *masks) if names.left_by_system(given.name)]
    return Inputs(_in_order(images), _in_order(masks), passed_over)


def _in_order(files: Sequence[InputFile]) -> list[InputFile]:
    kept = [given for given in files if not names.left_by_system(given.name)]
    return sorted(kept, key=lambda given: names.natural_key(given.name))
