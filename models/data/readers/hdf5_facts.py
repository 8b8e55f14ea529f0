"""The facts that a dataset of an HDF5 file gives: its axes, and the size of its voxels."""

import json
from typing import Any

import numpy as np

from models.data.readers.limits import ImageError
from models.data.readers.pixel_size import pixel_nm
from models.data.readers.volume import VoxelSize

_MAX_ATTRIBUTE_BYTES = 1 << 14
_SIZES = ("resolution", "voxel_size", "pixel_size", "spacing", "scale")
_UNITS = ("unit", "units")


def axes_of(dataset: Any) -> str:
    """Return a letter for each axis of a dataset: of t, c, z, y and x.

    They are told by the attribute ``axistags`` (of ilastik), by the labels of the dimensions, or by
    being MATLAB's, which lie the other way round. Otherwise they are (z, y, x), once axes of length
    1 are left out at the ends.

    Raises:
        ImageError: there are more than three axes, and nothing tells them apart.
    """
    shape: tuple[int, ...] = dataset.shape
    named = _tagged(dataset) or "".join(dimension.label for dimension in dataset.dims).lower()
    if len(named) == len(shape) and len(set(named)) == len(named) and set("yx") <= set(named):
        if not set(named) <= set("tczyx"):
            raise ImageError(f"has the axes {named}: only t, c, z, y and x are known")
        return named
    first, last = 0, len(shape)
    while last - first > 3 and shape[first] == 1:
        first += 1
    while last - first > 3 and shape[last - 1] == 1:
        last -= 1
    if last - first > 3:
        raise ImageError(f"has the shape {shape}, and does not say which axis is the depth")
    others = iter("tcabdefghijklmnopqrsuvw")
    inner = "zyx"[3 - (last - first) :]
    if attribute(dataset, "MATLAB_class") is not None:
        inner = {"yx": "xy", "zyx": "zxy"}[inner]
    elif last - first == 3 and shape[last - 1] in (2, 3, 4) and shape[last - 2] > 4:
        raise ImageError(f"has the shape {shape}, as colours have: save one grey channel of it")
    before = "".join(next(others) for _ in range(first))
    return before + inner + "".join(next(others) for _ in range(len(shape) - last))


def voxel_nm(dataset: Any, axes: str) -> VoxelSize:
    """Return the size of a voxel (z, y, x), where attributes give it with its unit.

    These are ``element_size_um``, whose unit is in its name, and others such as ``resolution``
    beside an attribute ``unit``.
    """
    sizes, unit = attribute(dataset, "element_size_um"), "um"
    if sizes is None:
        units = [each for name in _UNITS if isinstance(each := attribute(dataset, name), str)]
        found = [each for name in _SIZES if (each := attribute(dataset, name)) is not None]
        if not units or not found:
            return (None, None, None)
        sizes, unit = found[0], units[0]
    if not isinstance(sizes, list):
        return (None, None, None)
    order = [axis for axis in axes if axis in "zyx"]
    if len(sizes) == 3 and order == ["y", "x"]:
        sizes = sizes[1:]
    if len(sizes) != len(order):
        return (None, None, None)
    nm = {axis: pixel_nm(size, unit) for axis, size in zip(order, sizes, strict=True)}
    return nm.get("z"), nm.get("y"), nm.get("x")


def attribute(dataset: Any, name: str) -> str | list[float] | None:
    """Return a small attribute: a text, or a list of numbers; None if there is none such."""
    if name not in dataset.attrs:
        return None
    stored = dataset.attrs.get_id(name)
    if stored.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
        return None
    value = dataset.attrs[name]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return str(value)
    numbers = np.atleast_1d(np.asarray(value))
    if numbers.dtype.kind in "iuf":
        return [float(number) for number in numbers.ravel()]
    return None


def _tagged(dataset: Any) -> str:
    """Return the axes by ilastik's attribute, which is JSON."""
    text = attribute(dataset, "axistags")
    if not isinstance(text, str):
        return ""
    try:
        return "".join(axis["key"] for axis in json.loads(text)["axes"])
    except (ValueError, TypeError, KeyError):
        return ""
