"""Levels in z, y, x and nanometres, and the words for what is not read."""

from typing import Any

import pytest

from models.data.openorganelle.multiscale import Level, levels
from models.data.readers.limits import ImageError


def scale(*values: float) -> dict[str, Any]:
    return {"type": "scale", "scale": list(values)}


def shift(*values: float) -> dict[str, Any]:
    return {"type": "translation", "translation": list(values)}


def told(**changed: Any) -> dict[str, Any]:
    """Return the attributes of a group of two levels, with some fields changed."""
    datasets = [
        {"path": "s0", "coordinateTransformations": [scale(2.62, 2, 2), shift(3132.21, 899, 1)]},
        {"path": "s1", "coordinateTransformations": [scale(5.24, 4, 4), shift(3133.52, 900, 2)]},
    ]
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    return {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets} | changed]}


def test_levels_have_voxel_sizes_and_centres() -> None:
    expected = [
        Level("s0", (2.62, 2.0, 2.0), (3132.21, 899.0, 1.0), (0, 1, 2)),
        Level("s1", (5.24, 4.0, 4.0), (3133.52, 900.0, 2.0), (0, 1, 2)),
    ]
    assert levels(told()) == expected
    assert levels({"ome": {"version": "0.5", **told()}}) == expected


def test_the_finest_level_comes_first() -> None:
    datasets = told()["multiscales"][0]["datasets"][::-1]
    assert [level.path for level in levels(told(datasets=datasets))] == ["s0", "s1"]


def test_axes_may_stand_in_another_order() -> None:
    axes = [{"name": name, "unit": "nanometer"} for name in "xyz"]
    datasets = [{"path": "s0", "coordinateTransformations": [scale(1, 2, 3), shift(4, 5, 6)]}]
    assert levels(told(axes=axes, datasets=datasets)) == [
        Level("s0", (3.0, 2.0, 1.0), (6.0, 5.0, 4.0), (2, 1, 0))
    ]


def test_units_become_nanometres() -> None:
    units = ["micrometer", "nanometer", "angstrom"]
    axes = [{"name": name, "unit": unit} for name, unit in zip("zyx", units, strict=True)]
    datasets = [{"path": "s0", "coordinateTransformations": [scale(1, 2, 30), shift(4, 5, 60)]}]
    (level,) = levels(told(axes=axes, datasets=datasets))
    assert level.voxel_nm == pytest.approx((1000, 2, 3))
    assert level.centre_nm == pytest.approx((4000, 5, 6))


def test_transforms_of_the_whole_follow_those_of_the_level() -> None:
    whole = [scale(2, 2, 2), shift(10, 0, 0)]
    (level, _) = levels(told(coordinateTransformations=whole))
    assert level.voxel_nm == pytest.approx((5.24, 4, 4))
    assert level.centre_nm == pytest.approx((6274.42, 1798, 2))


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({}, "no metadata"),
        ({"multiscales": []}, "multiscales"),
        (told(axes=[{"name": n, "unit": "nanometer"} for n in "czyx"]), "4 axes"),
        (told(axes=[{"name": n, "unit": "nanometer"} for n in "tyx"]), "t, y, x"),
        (told(axes=[{"name": n} for n in "zyx"]), "no unit"),
        (told(axes=[{"name": n, "unit": "parsec"} for n in "zyx"]), "parsec"),
        (told(datasets=[{"path": "../../x", "coordinateTransformations": []}]), "leads out"),
        (told(datasets=[{"path": "s0", "coordinateTransformations": [scale(0, 1, 1)]}]), "scale"),
    ],
)
def test_other_metadata_are_refused_in_words(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(ImageError) as refused:
        levels(attributes)
    assert said in str(refused.value)
