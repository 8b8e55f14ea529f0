"""The inputs of a domain: files of a folder, files that were sent, or arrays.

Legend: N sections of a stack, H height, W width.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from models.data.readers.formats import open_stack, section_name
from models.data.readers.limits import Array, ImageError, check_size, native
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


@dataclass(frozen=True)
class InputFile:
    """A PNG, a TIFF, a zipped Zarr array, or the folder of a Zarr array."""

    name: str
    file: Path | BinaryIO

    @property
    def stem(self) -> str:
        return section_name(self.name)

    def open(self, ask: Ask) -> AbstractContextManager[Stack]:
        return open_stack(self.file, ask)


@dataclass(frozen=True)
class InputArray:
    """A section (H, W) or a stack of sections (N, H, W) in memory."""

    name: str
    array: Array

    @property
    def stem(self) -> str:
        return section_name(self.name)

    @contextmanager
    def open(self, ask: Ask) -> Iterator[Stack]:
        array = self.array
        if array.ndim not in (2, 3):
            raise ImageError(f"has the shape {array.shape}: give (H, W), or (N, H, W) for a stack")
        check_size((array.shape[-2], array.shape[-1]), ask.max_pixels)
        sections = array if array.ndim == 3 else [array]
        yield Stack(map(native, sections), len(sections))


def folder_inputs(folder: Path, kind: str) -> list[InputFile]:
    """Return ``folder/kind.zarr`` where that is a Zarr folder, else the files ``folder/kind/*``.

    ``kind`` is ``images`` or ``masks``. Systems leave files of their own (.DS_Store, ._a.png)
    beside the user's, which are passed over. Any other file is returned, so that one that is not an
    image is refused by its name.
    """
    stack = folder / f"{kind}.zarr"
    if stack.is_dir():
        return [InputFile("stack.zarr", stack)]
    paths = sorted(path for path in folder.glob(f"{kind}/*") if not path.name.startswith("."))
    return [
        InputFile(path.name if path.is_dir() else f"{kind}/{path.name}", path) for path in paths
    ]
