"""The metadata of OME-Zarr 0.4 and 0.5: one volume at several sizes, with axes and units.

A *multiscale* lists its levels, each an array. A voxel with the indices ``i`` along an axis has its
centre at ``translation + i * scale``, in the axis' unit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import add, mul
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from models.data.readers.limits import ImageError
from models.data.readers.pixel_size import unit_nm
from models.data.readers.places import joined

_VERSIONS = ("0.4", "0.5")
_MAX_LEVELS = 64

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Said(BaseModel):
    """The base of what a file says; fields that have no use here are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Axis(_Said):
    """An axis: its name, its type (space, channel or time) and its unit, where the file says so."""

    name: str
    type: str | None = None
    unit: str | None = None

    @property
    def unit_nm(self) -> float | None:
        """The length of the axis' unit, in nanometres; None if it says none that is known."""
        return unit_nm(self.unit or "")


class _Scale(_Said):
    type: Literal["scale"]
    scale: tuple[Positive, ...]


class _Translation(_Said):
    type: Literal["translation"]
    translation: tuple[Finite, ...]


class _Identity(_Said):
    type: Literal["identity"]


_Transform = Annotated[_Scale | _Translation | _Identity, Field(discriminator="type")]


class _Dataset(_Said):
    path: Annotated[str, Field(min_length=1, max_length=1000)]
    transforms: tuple[_Transform, ...] = Field((), alias="coordinateTransformations", max_length=8)


class _Multiscale(_Said):
    name: str | None = None
    version: str | None = None
    axes: tuple[Axis, ...] = Field(min_length=2, max_length=5)
    datasets: tuple[_Dataset, ...] = Field(min_length=1, max_length=_MAX_LEVELS)
    transforms: tuple[_Transform, ...] = Field((), alias="coordinateTransformations", max_length=8)

    @field_validator("axes")
    @classmethod
    def _distinct(cls, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        if len({axis.name for axis in axes}) < len(axes):
            raise ValueError("two axes have the same name")
        return axes


class _Channel(_Said):
    label: str | None = None


class _Omero(_Said):
    channels: tuple[_Channel, ...] = ()


@dataclass(frozen=True)
class Level:
    """An array of a multiscale: its path in the group, and where its voxels lie.

    ``scale`` and ``translation`` have a number for each axis, in the axis' unit.
    """

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True)
class Multiscale:
    """A volume at several sizes. ``channels`` are their names, where the file gives them."""

    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    version: str
    name: str | None = None
    channels: tuple[str, ...] = ()

    def voxel_nm(self, level: Level, axis: str) -> float | None:
        """Return the size of a voxel along an axis; None if it has no such axis, or no unit."""
        return self._in_nm(level.scale, axis)

    def centre_nm(self, level: Level, axis: str) -> float | None:
        """Return where the centre of the first voxel lies; None as above."""
        return self._in_nm(level.translation, axis)

    def _in_nm(self, values: Sequence[float], axis: str) -> float | None:
        for each, value in zip(self.axes, values, strict=True):
            if each.name == axis and each.unit_nm is not None:
                return value * each.unit_nm
        return None


def multiscales(attributes: Mapping[str, object]) -> tuple[Multiscale, ...]:
    """Return the multiscales in a group's attributes; none if it is no OME-Zarr group.

    Raises:
        ImageError: they are of a version that is not read, or wrong.
    """
    said = attributes
    if isinstance(inner := attributes.get("ome"), Mapping):
        said = inner
    listed = said.get("multiscales")
    if listed is None:
        return ()
    if not isinstance(listed, list) or not 1 <= len(listed) <= _MAX_LEVELS:
        raise ImageError("has no list of multiscales, where OME-Zarr wants one")
    version = said.get("version")
    return tuple(_multiscale(each, version, _channels(said)) for each in listed)


def label_names(attributes: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of the label images that a group ``labels`` lists in its attributes."""
    said = attributes
    if isinstance(inner := attributes.get("ome"), Mapping):
        said = inner
    listed = said.get("labels")
    names = listed if isinstance(listed, list) else []
    return tuple(joined(name) for name in names if isinstance(name, str) and name)


def _multiscale(said: object, version: object, channels: tuple[str, ...]) -> Multiscale:
    told = version or (said.get("version") if isinstance(said, Mapping) else None)
    if told is not None and told not in _VERSIONS:
        raise ImageError(
            f"is OME-Zarr of version {told}; {' and '.join(_VERSIONS)} are read. Give the path of "
            "one of its arrays"
        )
    try:
        read = _Multiscale.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ImageError(f"has wrong OME-Zarr metadata: {where}: {first['msg']}") from error
    levels = tuple(_level(read, dataset) for dataset in read.datasets)
    return Multiscale(read.axes, levels, str(told or _VERSIONS[0]), read.name, channels)


def _level(read: _Multiscale, dataset: _Dataset) -> Level:
    """Apply the level's own transformations, then those of all levels, in their order."""
    scale, translation = (1.0,) * len(read.axes), (0.0,) * len(read.axes)
    for transform in (*dataset.transforms, *read.transforms):
        if isinstance(transform, _Scale):
            factors = _of_each_axis(transform.scale, read.axes)
            scale = tuple(map(mul, scale, factors))
            translation = tuple(map(mul, translation, factors))
        elif isinstance(transform, _Translation):
            translation = tuple(
                map(add, translation, _of_each_axis(transform.translation, read.axes))
            )
    return Level(joined(dataset.path), scale, translation)


def _of_each_axis(numbers: tuple[float, ...], axes: tuple[Axis, ...]) -> tuple[float, ...]:
    if len(numbers) != len(axes):
        raise ImageError(
            f"has wrong OME-Zarr metadata: a transformation of {len(numbers)} numbers for "
            f"{len(axes)} axes"
        )
    return numbers


def _channels(said: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of channels in the block ``omero``, which only viewers need."""
    try:
        read = _Omero.model_validate(said.get("omero") or {})
    except ValidationError:
        return ()
    return tuple(channel.label or "" for channel in read.channels)
