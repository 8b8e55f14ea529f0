"""Place labels on the voxels of the micrographs: by the centres of voxels, and exactly.

Legend: triples are z, y, x.
"""

from dataclasses import dataclass
from math import floor

Shape = tuple[int, int, int]
Nm = tuple[float, float, float]

_TOLERANCE = 0.05
"""The part of a voxel by which published coordinates may be off, for example because rounded."""

_AXES = "zyx"


class GeometryError(ValueError):
    """Labels do not lie on the voxels of the micrographs; the message says where."""


@dataclass(frozen=True)
class Grid:
    """The voxels of an array: their number and size, and the centre of the first one."""

    shape: Shape
    voxel_nm: Nm
    centre_nm: Nm

    def edge_nm(self, axis: int) -> float:
        """Return where the array begins: half a voxel before the centre of its first voxel."""
        return self.centre_nm[axis] - self.voxel_nm[axis] / 2


@dataclass(frozen=True)
class Box:
    """A box of voxels: the first one, and the number along each axis."""

    start: Shape
    shape: Shape

    @property
    def stop(self) -> Shape:
        z, y, x = (first + size for first, size in zip(self.start, self.shape, strict=True))
        return z, y, x

    def overlaps(self, other: "Box") -> bool:
        """Tell whether both boxes have a voxel in common."""
        return all(
            self.start[axis] < other.stop[axis] and other.start[axis] < self.stop[axis]
            for axis in range(3)
        )

    def __str__(self) -> str:
        sides = zip(_AXES, self.start, self.stop, strict=True)
        return ", ".join(f"{axis} {first} to {stop}" for axis, first, stop in sides)


def factors(labels: Grid, em: Grid) -> Shape:
    """Return how many label voxels make one voxel of the micrographs along each axis.

    Raises:
        GeometryError: it is no whole number, or the labels are coarser.
    """
    found = []
    for axis, name in enumerate(_AXES):
        ratio = em.voxel_nm[axis] / labels.voxel_nm[axis]
        whole = round(ratio)
        # Along the whole array the error of one voxel adds up.
        if whole < 1 or abs(ratio - whole) * labels.shape[axis] / ratio > _TOLERANCE * ratio:
            raise GeometryError(
                f"has labels of {labels.voxel_nm[axis]:g} nm along {name}: no whole number of them "
                f"makes a voxel of the micrographs, {em.voxel_nm[axis]:g} nm"
            )
        found.append(whole)
    z, y, x = found
    return z, y, x


def place(labels: Grid, em: Grid) -> Box:
    """Return the box of micrograph voxels that the labels fill.

    Raises:
        GeometryError: the labels begin or end inside a voxel, or lie outside the volume.
    """
    start, shape = [], []
    for axis, (name, factor) in enumerate(zip(_AXES, factors(labels, em), strict=True)):
        voxel = em.voxel_nm[axis]
        first = (labels.edge_nm(axis) - em.edge_nm(axis)) / voxel
        nearest = floor(first + 0.5)  # never cut off: 597.9999 is 598
        if abs(first - nearest) > _TOLERANCE:
            raise GeometryError(
                f"does not lie on the voxels of the micrographs: along {name} it begins at "
                f"{first:.3f} voxels"
            )
        size, rest = divmod(labels.shape[axis], factor)
        if rest or not size:
            raise GeometryError(
                f"does not lie on the voxels of the micrographs: along {name} it has "
                f"{labels.shape[axis]} label voxels, of which {factor} make one voxel"
            )
        if nearest < 0 or nearest + size > em.shape[axis]:
            raise GeometryError(
                f"leaves the volume: along {name} it takes the voxels {nearest} to "
                f"{nearest + size}, and the volume has {em.shape[axis]}"
            )
        start.append(nearest)
        shape.append(size)
    return Box((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))
