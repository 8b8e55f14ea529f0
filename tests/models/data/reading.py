"""Read all sections of a file, as the intake does."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from models.data.readers.formats import open_stack
from models.data.readers.limits import Array
from models.data.readers.stack import Ask, Purpose, ReadOptions


def read_sections(
    file: Path | BinaryIO, max_pixels: int, *, purpose: Purpose = "image", **options: object
) -> Iterator[Array]:
    ask = Ask(max_pixels, purpose, ReadOptions.model_validate(options))
    with open_stack(file, ask) as stack:
        yield from stack.sections
