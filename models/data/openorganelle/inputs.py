"""The crops of a plan as inputs of an intake: sections along z, read when they are asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from models.data.description import Description
from models.data.domain import IGNORE
from models.data.intake.inputs import Inputs
from models.data.names import section_names
from models.data.openorganelle.geometry import Box
from models.data.openorganelle.masks import Presence, majority, merged, stacked
from models.data.openorganelle.plan import Crop, LabelArray, Plan, label_depth
from models.data.readers.limits import Array, ImageError, check_size, native
from models.data.readers.stack import Ask, Stack

Kind = Literal["images", "masks"]


def crop_inputs(plan: Plan) -> Inputs:
    """Return the images and masks of all crops, each a stack; nothing is read yet."""
    return Inputs(
        [CropInput("images", plan, crop) for crop in plan.crops],
        [CropInput("masks", plan, crop) for crop in plan.crops],
        [f"{name} ({why})" for name, why in plan.left_out.items()],
    )


def description(plan: Plan) -> Description:
    """Return the description of all crops as a domain; a crop, with those that overlap, is a group.

    It fits the inputs of ``crop_inputs`` and the folder that ``fetch`` leaves.
    """
    groups: dict[str, list[str]] = {}
    unannotated: dict[str, list[str]] = {}
    for crop in plan.crops:
        names = section_names(crop.name, crop.box.shape[0])
        groups.setdefault(crop.group, []).extend(names)
        for number, class_name in enumerate(plan.table.class_names):
            if number not in crop.annotated:
                unannotated.setdefault(class_name, []).extend(names)
    return Description(
        class_names=list(plan.table.class_names),
        pixel_size_nm=plan.pixel_size_nm,
        ignore_value=IGNORE,  # said, because masks of two classes could be taken for 0 and 255
        groups=groups,
        unannotated=unannotated or None,
    )


@dataclass(frozen=True)
class CropInput:
    """The micrographs or the masks of a crop: a section (H, W) for each step along z.

    A mask holds the class ids as uint8, 255 without a class.
    """

    kind: Kind
    plan: Plan
    crop: Crop

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.crop.name}"

    @property
    def stem(self) -> str:
        return self.crop.name

    @contextmanager
    def open(self, ask: Ask) -> Iterator[Stack]:
        depth, height, width = self.crop.box.shape
        check_size((height, width), ask.max_pixels)
        em = self.plan.em
        pixel_size_nm = (em.grid.voxel_nm[1], em.grid.voxel_nm[2])
        if self.kind == "images":
            where = f"was read from {self.plan.place}/{em.key}: {self.crop.box}"
            slabs, notes = _images(self.plan, self.crop), (where, *self.crop.notes)
        else:
            slabs, notes = _masks(self.plan, self.crop), ()
        yield Stack(_sections(slabs), depth, pixel_size_nm, notes)

    def again(self) -> None:
        return None


def _images(plan: Plan, crop: Crop) -> Iterator[Array]:
    """Yield the micrographs of a crop in slabs (depth, H, W)."""
    em = plan.em
    for slab in em.slabs(crop.box):
        values, holes = em.read(slab)
        if holes:
            em.lost.update(holes)
            raise ImageError(
                f"lacks {len(holes)} file(s) of the micrographs near {slab}: the copy is not "
                "complete, or was made for other crops"
            )
        yield values


def _masks(plan: Plan, crop: Crop) -> Iterator[Array]:
    """Yield the class ids of a crop in slabs (depth, H, W)."""
    read = [each for each in crop.arrays if not each.is_empty]
    whole = Box((0, 0, 0), read[0].volume.grid.shape)
    depth = label_depth(crop.arrays, crop.block)
    structures = [_Structure(each, whole) for each in crop.arrays if each.encoding]
    for slab in read[0].volume.slabs(whole, depth):
        if structures:
            classes = stacked({each.name: each.presence(slab) for each in structures}, plan.table)
        else:
            ids, holes = read[0].volume.read(slab)
            classes = merged(ids, plan.table, crop.annotated)
            read[0].volume.lost.update(holes)
            for hole in holes.values():
                classes[hole] = IGNORE
        yield majority(classes, crop.block)


class _Structure:
    """The array of a single structure.

    A writer may leave out the files of voxels that are all absent, and a copy may have lost files.
    If the annotators counted the absent voxels, their number tells both apart. Else nobody knows.
    """

    def __init__(self, array: LabelArray, whole: Box) -> None:
        assert array.encoding is not None
        self.name = array.name
        self._array = array
        self._encoding = array.encoding
        self._whole = whole

    def presence(self, slab: Box) -> Presence:
        if self._array.is_empty:
            nowhere = np.zeros(slab.shape, bool)
            return Presence(nowhere, nowhere)
        values, holes = self._array.volume.read(slab)
        found = self._encoding.read(values)
        absent = bool(holes) and self._left_out_is_absent
        if not absent:
            self._array.volume.lost.update(holes)
        for hole in holes.values():
            found.present[hole], found.unknown[hole] = False, not absent
        return found

    @cached_property
    def _left_out_is_absent(self) -> bool:
        absent = 0
        for slab in self._array.volume.slabs(self._whole):
            values, holes = self._array.volume.read(slab)
            here = values == self._encoding.absent
            for hole in holes.values():
                here[hole] = True
            absent += int(np.count_nonzero(here))
        return absent == self._array.absent


def _sections(slabs: Iterator[Array]) -> Iterator[Array]:
    for slab in slabs:
        for section in slab:
            yield np.ascontiguousarray(native(section))
