"""What datasets say of their axes and sizes."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from models.data.readers.hdf5_facts import attribute, axes_of, voxel_nm
from models.data.readers.limits import ImageError


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    """Makes a dataset of a shape, with attributes."""
    with h5py.File(tmp_path / "a.h5", "w") as file:

        def make(shape: tuple[int, ...], **attributes: object) -> Any:
            made = file.create_dataset(str(len(file)), shape, "u1")
            made.attrs.update(attributes)
            return made

        yield make


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((9, 8), "yx"), ((7, 9, 8), "zyx"), ((1, 1, 7, 9, 8), "tczyx"), ((7, 9, 8, 1), "zyxt")],
)
def test_axes_without_names(dataset: Any, shape: tuple[int, ...], axes: str) -> None:
    assert axes_of(dataset(shape)) == axes


def test_axes_by_their_names(dataset: Any) -> None:
    tags = json.dumps({"axes": [{"key": axis} for axis in "xyzc"]})
    assert axes_of(dataset((8, 9, 7, 2), axistags=tags)) == "xyzc"
    labelled = dataset((8, 9, 7))
    for dimension, label in zip(labelled.dims, "xyz", strict=True):
        dimension.label = label
    assert axes_of(labelled) == "xyz"
    assert axes_of(dataset((7, 9, 8), axistags="no JSON")) == "zyx"
    with pytest.raises(ImageError, match="axes"):
        axes_of(dataset((7, 9, 8), axistags=json.dumps({"axes": [{"key": k} for k in "qyx"]})))


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"element_size_um": [0.05, 0.005, 0.004]}, (50, 5, 4)),
        ({"element_size_um": [0.005, 0.004]}, (None, None, None)),
        ({"resolution": [50, 5, 4], "unit": "nm"}, (50, 5, 4)),
        ({"voxel_size": [0.05, 0.005, 0.004], "units": "um"}, (50, 5, 4)),
        ({"resolution": [50, 5, 4]}, (None, None, None)),
        ({"element_size_um": [0, 0, 0]}, (None, None, None)),
        ({"element_size_um": "text"}, (None, None, None)),
        ({}, (None, None, None)),
    ],
)
def test_sizes(dataset: Any, attributes: dict[str, Any], size: tuple[float, ...]) -> None:
    found = voxel_nm(dataset((7, 9, 8), **attributes), "zyx")
    assert found == tuple(each and pytest.approx(each) for each in size)


def test_sizes_follow_the_axes(dataset: Any) -> None:
    made = dataset((8, 9, 7), element_size_um=[0.004, 0.005, 0.05])
    assert voxel_nm(made, "xyz") == pytest.approx((50, 5, 4))
    made = dataset((9, 8), element_size_um=[0.05, 0.005, 0.004])
    assert voxel_nm(made, "yx") == (None, pytest.approx(5), pytest.approx(4))


def test_large_attributes_are_not_read(dataset: Any) -> None:
    made = dataset((9, 8), large=np.zeros(7000), b=np.zeros(3), d=np.bytes_("bytes"))
    assert attribute(made, "large") is None
    assert attribute(made, "b") == [0.0, 0.0, 0.0]
    assert attribute(made, "none") is None
    assert attribute(made, "d") == "bytes"
