"""The levels of a volume in z, y and x, in nanometres, from the metadata of OME-Zarr."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from models.data.openorganelle.geometry import Nm, Shape
from models.data.readers.limits import ImageError
from models.data.readers.ome import Multiscale, multiscales

Attributes = Mapping[str, object]
"""The attributes of a Zarr group or array, as JSON holds them."""


class VolumeError(ImageError):
    """A volume is missing, damaged, or of a form that is not read."""


@dataclass(frozen=True)
class Level:
    """A level of a volume: its path, and size and first centre of its voxels along z, y, x.

    ``axes`` are the places of z, y and x in the array's shape.
    """

    path: str
    voxel_nm: Nm
    centre_nm: Nm
    axes: Shape


def levels(attributes: Attributes) -> list[Level]:
    """Return the levels that the attributes of a group describe, the finest first.

    Raises:
        ImageError: the attributes are no multiscale of OME-Zarr with the axes z, y and x.
    """
    found = multiscales(attributes)
    if not found:
        raise VolumeError("has no metadata of OME-Zarr, which tell where its voxels lie")
    multiscale = found[0]
    names = [axis.name for axis in multiscale.axes]
    if sorted(names) != ["x", "y", "z"]:
        raise VolumeError(f"has the axes {', '.join(names)}: only z, y and x are read")
    units = [_unit_nm(multiscale, name) for name in "zyx"]
    axes = (names.index("z"), names.index("y"), names.index("x"))
    listed = [
        Level(
            level.path,
            _nm(zyx(level.scale, axes), units),
            _nm(zyx(level.translation, axes), units),
            axes,
        )
        for level in multiscale.levels
    ]
    return sorted(listed, key=lambda level: prod(level.voxel_nm))


def zyx(values: Sequence[Any], axes: Shape) -> tuple[Any, Any, Any]:
    """Return values for the axes of an array in the order z, y, x."""
    return values[axes[0]], values[axes[1]], values[axes[2]]


def _unit_nm(multiscale: Multiscale, name: str) -> float:
    (axis,) = (axis for axis in multiscale.axes if axis.name == name)
    if axis.unit_nm is None:
        said = "no unit" if axis.unit is None else f"the unit {axis.unit!r}"
        raise VolumeError(f"has {said} for the axis {name}: a length such as nanometer is read")
    return axis.unit_nm


def _nm(values: Sequence[float], units: Sequence[float]) -> Nm:
    z, y, x = (value * unit for value, unit in zip(values, units, strict=True))
    return z, y, x
