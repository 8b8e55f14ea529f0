"""The metadata of OME-Zarr groups."""

from copy import deepcopy
from typing import Any

import pytest

from models.data.readers.limits import ImageError
from models.data.readers.ome import label_names, multiscales

AXES = [
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "nanometer"},
    {"name": "x", "type": "space", "unit": "angstrom"},
]
MULTISCALE: dict[str, Any] = {
    "name": "cell",
    "axes": AXES,
    "datasets": [
        {
            "path": "s0",
            "coordinateTransformations": [
                {"type": "scale", "scale": [1, 0.02, 4, 40]},
                {"type": "translation", "translation": [0, 0.1, 1, 10]},
            ],
        },
        {"path": "s1", "coordinateTransformations": [{"type": "scale", "scale": [1, 2, 3, 4]}]},
    ],
    "coordinateTransformations": [{"type": "scale", "scale": [1, 2, 1, 1]}],
}
V4 = {"multiscales": [MULTISCALE | {"version": "0.4"}], "omero": {"channels": [{"label": "SE"}]}}
V5 = {"ome": {"version": "0.5", "multiscales": [MULTISCALE], "omero": V4["omero"]}}


@pytest.mark.parametrize("attributes", [V4, V5], ids=["0.4", "0.5"])
def test_levels_have_sizes_and_places_in_nanometres(attributes: dict[str, Any]) -> None:
    (found,) = multiscales(attributes)
    assert [axis.name for axis in found.axes] == ["c", "z", "y", "x"]
    assert (found.name, found.channels) == ("cell", ("SE",))
    first, second = found.levels
    assert [level.path for level in found.levels] == ["s0", "s1"]
    sizes = [found.voxel_nm(first, axis) for axis in "czyx"]
    assert sizes == [None, pytest.approx(40), pytest.approx(4), pytest.approx(4)]
    # The scale of all levels comes after the level's own, so it moves the level, too.
    centres = [found.centre_nm(first, axis) for axis in "zyx"]
    assert centres == [pytest.approx(200), pytest.approx(1), pytest.approx(1)]
    assert [found.voxel_nm(second, axis) for axis in "zyx"] == [4000, 3, pytest.approx(0.4)]


@pytest.mark.parametrize(
    ("unit", "nm"),
    [
        ("nanometer", 1),
        ("nanometre", 1),
        ("nm", 1),
        ("Micrometer", 1e3),
        ("µm", 1e3),
        ("μm", 1e3),
        ("um", 1e3),
        ("millimeter", 1e6),
        ("mm", 1e6),
        ("meter", 1e9),
        ("angstrom", 0.1),
        ("pixel", None),
        ("", None),
        (None, None),
    ],
)
def test_units_of_length(unit: str | None, nm: float | None) -> None:
    changed = deepcopy(MULTISCALE)
    changed["axes"][2]["unit"] = unit
    (found,) = multiscales({"multiscales": [changed]})
    assert found.voxel_nm(found.levels[1], "y") == (None if nm is None else pytest.approx(3 * nm))


def test_a_group_without_multiscales_is_no_ome_zarr() -> None:
    assert multiscales({}) == ()
    assert multiscales({"ome": {"version": "0.5", "labels": ["mito"]}}) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"axes": []}, "axes"),
        ({"axes": None}, "axes"),
        ({"axes": [AXES[1], AXES[1], AXES[2], AXES[3]]}, "same name"),
        ({"axes": ["z", "y", "x"]}, "axes"),
        ({"axes": AXES[1:]}, "4 numbers for 3 axes"),
        ({"datasets": []}, "datasets"),
        ({"datasets": [{"path": "../../etc"}]}, "leads out"),
        ({"datasets": [{"path": "s0"}] * 1000}, "datasets"),
        ({"coordinateTransformations": [{"type": "scale", "scale": [1, 0, 1, 1]}]}, "scale"),
        ({"coordinateTransformations": [{"type": "scale", "scale": [1, "x", 1, 1]}]}, "scale"),
        ({"coordinateTransformations": [{"type": "affine"}]}, "affine"),
        ({"version": "0.3"}, "0.3"),
        ({"version": "0.6.dev1"}, "0.6"),
    ],
)
def test_wrong_metadata_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ImageError, match=said):
        multiscales({"multiscales": [MULTISCALE | change]})


@pytest.mark.parametrize("listed", [{}, [], "s0", [MULTISCALE] * 1000, [3], [None]])
def test_what_is_no_list_of_multiscales_is_refused(listed: object) -> None:
    with pytest.raises(ImageError, match=r"OME-Zarr"):
        multiscales({"multiscales": listed})


def test_names_of_label_images() -> None:
    assert label_names({"labels": ["mito", "er/all"]}) == ("mito", "er/all")
    assert label_names({"ome": {"labels": ["mito"], "version": "0.5"}}) == ("mito",)
    assert label_names({}) == label_names({"labels": "mito"}) == ()
