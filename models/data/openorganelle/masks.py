"""Turn annotated volumes into class ids: by the class table, and never an unknown voxel into one.

Legend: arrays are (Z, Y, X), at the voxels of the labels or of the micrographs.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from models.data.domain import IGNORE
from models.data.openorganelle.classes import ClassTable
from models.data.openorganelle.geometry import Shape
from models.data.readers.limits import Array

Mask = NDArray[np.uint8]
Where = NDArray[np.bool_]


def merged(ids: Array, table: ClassTable, annotated: Collection[int]) -> Mask:
    """Return the class of each voxel of an array ``all``; 255 where it has none.

    Args:
        ids: the id of the structure of each voxel (Z, Y, X), of an integer dtype.
        table: the classes that the structures make.
        annotated: the ids of the classes that were annotated. Voxels of any other are ignored.
    """
    lookup = table.lookup(annotated)
    classes: Mask = np.empty(ids.shape, dtype=np.uint8)
    # Plane by plane: NumPy makes an index of eight bytes of each id.
    for plane, its_ids in zip(classes, ids, strict=True):
        # 65535 is the id of no structure, so what lies beyond may become it.
        plane[...] = lookup[np.clip(its_ids, 0, 65535)]
    return classes


@dataclass(frozen=True)
class Presence:
    """The voxels that show a structure, and those of which nobody knows."""

    present: Where
    unknown: Where


def stacked(arrays: Mapping[str, Presence], table: ClassTable) -> Mask:
    """Return the class of each voxel from the arrays of single structures and of groups.

    A voxel that structures of two classes claim is ignored. A group gives its voxels a class only
    where one class is left: where all its structures of other classes have arrays of their own,
    which do not show the voxel, and know that.
    """
    shape = next(iter(arrays.values())).present.shape
    claims = _Claims(shape, table)
    singles = [name for name in table.class_of if name in arrays and name not in table.groups]
    for name in singles:
        claims.add_single(name, arrays[name])
    # A smaller group tells apart what a larger one holds together: ne before er.
    for name in sorted(table.groups, key=lambda group: len(table.groups[group])):
        if name in arrays:
            claims.add_group(table.groups[name], arrays[name])
    return claims.classes


class _Claims:
    """The class of each voxel so far, and which arrays said something of it."""

    def __init__(self, shape: tuple[int, ...], table: ClassTable) -> None:
        self.classes: Mask = np.full(shape, IGNORE, dtype=np.uint8)
        self._table = table
        self._settled: Where = np.zeros(shape, dtype=bool)
        self._read: list[tuple[frozenset[str], Where]] = []

    def add_single(self, name: str, array: Presence) -> None:
        owner = self._table.class_of[name]
        contested = array.present & self._settled & (self.classes != owner)
        self.classes[array.present & ~self._settled] = owner
        self.classes[contested] = IGNORE
        self._settled |= array.present
        self._read.append((frozenset([name]), array.unknown))

    def add_group(self, parts: Collection[str], array: Presence) -> None:
        inside = [(names, unknown) for names, unknown in self._read if names <= set(parts)]
        told_apart = frozenset[str]().union(*(names for names, _ in inside))
        owners = self._owners(set(parts) - told_apart)
        if len(owners) == 1:
            free = array.present & ~self._settled
            for names, unknown in inside:
                if self._owners(names) != owners:
                    free &= ~unknown
            self.classes[free] = owners.pop()
        # Without one owner, its voxels stay ignored: no larger group may take them.
        self._settled |= array.present
        self._read.append((frozenset(parts), array.unknown))

    def _owners(self, names: Collection[str]) -> set[int]:
        return {self._table.class_of[name] for name in names}


def majority(classes: Mask, block: Shape) -> Mask:
    """Reduce class ids by blocks of voxels: the class that most voxels of a block have.

    Of two classes that are equally frequent the lower id is taken. A block is ignored only if at
    least half of its voxels are. ``block`` divides the shape.
    """
    if block == (1, 1, 1):
        return classes
    corners = [
        np.ascontiguousarray(classes[z :: block[0], y :: block[1], x :: block[2]])
        for z, y, x in product(*map(range, block))
    ]
    shape = corners[0].shape
    best: Mask = np.full(shape, IGNORE, dtype=np.uint8)
    most = np.zeros(shape, dtype=np.uint16)
    for value in sorted(set().union(*(np.unique(plane).tolist() for plane in classes))):
        count = np.zeros(shape, dtype=np.uint16)
        for corner in corners:
            count += corner == value
        wins = 2 * count >= len(corners) if value == IGNORE else count > most
        best[wins] = value
        most[wins] = count[wins]
    return best
