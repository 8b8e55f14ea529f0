"""Read TIFF files by tifffile: which planes are sections, and how large their pixels are."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import tifffile

from models.data.readers.limits import Array
from models.data.readers.pixel_size import pixel_nm, printed_nm
from models.data.readers.stack import Ask, Stack
from models.data.readers.tiff_directories import Directory, directories
from models.data.readers.tiff_layout import FirstPage, Layout, layout_of
from models.data.readers.tiff_page import PageReader
from models.data.readers.tiff_scopes import microscope_nm
from models.data.readers.volume import Slices, Volume, VoxelSize, stack_of

# It logs what is wrong with a file; the file's owner is told instead.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@contextmanager
def open_tiff(stream: BinaryIO, ask: Ask) -> Iterator[Stack]:
    """Open the sections of a TIFF: pages, or what ImageJ, OME and tifffile say of theirs."""
    num_bytes = stream.seek(0, 2)
    pages = directories(stream, num_bytes)
    stream.seek(0)
    # Named, because tifffile cannot cope with the missing name of an uploaded file.
    with tifffile.TiffFile(stream, name="section") as tiff:
        first = _page(tiff, pages[0])
        reader = PageReader(ask, num_bytes)
        facts = FirstPage(first.description, first.shape, reader.room(first))
        layout = layout_of(pages, facts, ask)
        yield stack_of(_volume(_Planes(tiff, pages, layout, reader)), ask)


@dataclass(frozen=True)
class _Planes:
    """The planes of a file that are its sections, decoded one by one."""

    tiff: tifffile.TiffFile
    pages: Sequence[Directory]
    layout: Layout
    reader: PageReader

    def read(self, window: Slices) -> Array:
        depth, rows, cols = window
        wanted = self.layout.planes[depth]
        if len(wanted) == 1:
            return self.section(wanted[0])[None, rows, cols]
        first = self.section(wanted[0])[rows, cols]
        found = np.empty((len(wanted), *first.shape), first.dtype)
        found[0] = first
        for index, plane in enumerate(wanted[1:], start=1):
            found[index] = self.section(plane)[rows, cols]
        return found

    def section(self, plane: int) -> Array:
        if self.layout.behind_first:
            return self.reader.read_behind(_page(self.tiff, self.pages[0]), plane)
        return self.reader.read(_page(self.tiff, self.pages[plane]))


def _page(tiff: tifffile.TiffFile, directory: Directory) -> tifffile.TiffPage:
    tiff.filehandle.seek(directory.offset)
    return tifffile.TiffPage(tiff, index=0)


def _volume(planes: _Planes) -> Volume:
    layout, reader = planes.layout, planes.reader
    page = _page(planes.tiff, planes.pages[0 if layout.behind_first else layout.planes[0]])
    header = reader.check(page, one_channel=layout.one_channel)
    height, width = header.shape
    voxel = _voxel(page, layout, sideways=header.sideways)
    shape = (len(layout.planes), height, width)
    notes = (*layout.notes, *header.notes)
    return Volume(shape, header.dtype, (1, height, width), planes.read, voxel, notes)


def _voxel(page: tifffile.TiffPage, layout: Layout, *, sideways: bool) -> VoxelSize:
    """Return the size of a voxel (z, y, x) as sections show it, from what the file states."""
    z, y, x = layout.voxel_nm
    if y is None or x is None:
        y, x = _resolution(page, layout.unit) or microscope_nm(page) or (None, None)
    return (z, x, y) if sideways else (z, y, x)


def _resolution(page: tifffile.TiffPage, unit: str | None) -> tuple[float, float] | None:
    """Return the size of a pixel (y, x) by the tags of the resolution, in the unit of ImageJ."""
    sizes = []
    for code in (283, 282):  # y, x
        numerator, denominator = page.tags.valueof(code) or (0, 0)
        per_unit = numerator / denominator if denominator else 0.0
        if unit and unit not in ("inch", "cm"):
            size = pixel_nm(1 / per_unit, unit) if per_unit else None
        else:
            size = printed_nm(per_unit, _TAG_UNITS.get(page.tags.valueof(296, 2), unit or ""))
        if size is None:
            return None
        sizes.append(size)
    return sizes[0], sizes[1]


_TAG_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "µm"}
