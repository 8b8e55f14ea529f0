"""Groups of Zarr: which array is read, and what is said of its pixels."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from models.data.readers.formats import open_stack
from models.data.readers.limits import Array, ImageError
from models.data.readers.places import LocalPlace
from models.data.readers.stack import Ask, Purpose, ReadOptions, Stack
from models.data.readers.zarr_nodes import label_images

MANY = 1 << 20
VOLUME = np.random.default_rng(2).integers(0, 255, (4, 16, 24), dtype=np.uint8)
VERSIONS = ["0.4", "0.5"]
SPACE = tuple({"name": name, "type": "space", "unit": "nanometer"} for name in "zyx")


def multiscale(
    folder: Path,
    levels: dict[str, tuple[Array, list[float]]],
    version: str = "0.4",
    axes: tuple[dict[str, str], ...] = SPACE,
    **said: Any,
) -> Path:
    """Write a group of levels, each with its scale."""
    group = zarr.open_group(str(folder), mode="a", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for path, (array, scale) in levels.items():
        group.create_array(path, data=array)
        transforms = [{"type": "scale", "scale": scale}]
        datasets.append({"path": path, "coordinateTransformations": transforms})
    described = {"axes": list(axes), "datasets": datasets}
    if version == "0.4":
        group.attrs.update({"multiscales": [described | {"version": version}]} | said)
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [described]} | said
    return folder


def two_levels(folder: Path, version: str = "0.4", array: Array = VOLUME) -> Path:
    half = array[:, ::2, ::2]
    return multiscale(folder, {"s0": (array, [40, 4, 5]), "s1": (half, [40, 8, 10])}, version)


def read(
    place: Path | io.BytesIO, purpose: Purpose = "image", **options: object
) -> tuple[Array, Stack]:
    ask = Ask(MANY, purpose, ReadOptions.model_validate(options))
    if isinstance(place, io.BytesIO):
        place.seek(0)
    with open_stack(place, ask) as stack:
        return np.stack(list(stack.sections)), stack


def refused(place: Path | io.BytesIO, **options: object) -> str:
    with pytest.raises(ImageError) as error:
        read(place, **options)
    return str(error.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_finest_level_is_read_and_its_pixel_size(tmp_path: Path, version: str) -> None:
    sections, stack = read(two_levels(tmp_path / "a.zarr", version))
    np.testing.assert_array_equal(sections, VOLUME)
    assert stack.pixel_size_nm == (4, 5)
    (note,) = stack.notes
    assert "s0" in note
    _, along_x = read(tmp_path / "a.zarr", axis="x")
    assert along_x.pixel_size_nm == (40, 4)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("nm", "level"), [(1, 0), (5, 0), (7, 1), (50, 1)])
def test_the_level_of_the_nearest_pixel_size(
    tmp_path: Path, version: str, nm: float, level: int
) -> None:
    sections, stack = read(two_levels(tmp_path / "a.zarr", version), level_nm=nm)
    np.testing.assert_array_equal(sections, VOLUME if level == 0 else VOLUME[:, ::2, ::2])
    assert stack.pixel_size_nm == ((4, 5) if level == 0 else (8, 10))
    assert f"s{level}" in stack.notes[0]


def test_levels_in_any_order_and_units(tmp_path: Path) -> None:
    axes = tuple(axis | {"unit": "micrometer"} for axis in SPACE)
    levels = {
        "coarse": (VOLUME[:, ::2, ::2], [0.04, 0.008, 0.008]),
        "fine": (VOLUME, [0.04, 0.004, 0.004]),
    }
    sections, stack = read(multiscale(tmp_path / "a", levels, axes=axes))
    np.testing.assert_array_equal(sections, VOLUME)
    assert stack.pixel_size_nm == pytest.approx((4, 4))


def test_a_level_is_not_chosen_by_a_size_that_nobody_says(tmp_path: Path) -> None:
    axes = tuple({"name": axis["name"], "type": "space"} for axis in SPACE)
    levels = {"0": (VOLUME, [1.0, 1, 1]), "1": (VOLUME[:, ::2, ::2], [1.0, 2, 2])}
    folder = multiscale(tmp_path / "a", levels, axes=axes)
    sections, stack = read(folder)
    np.testing.assert_array_equal(sections, VOLUME)
    assert stack.pixel_size_nm is None
    assert "reading.path" in refused(folder, level_nm=4)


def test_a_level_is_chosen_by_its_path(tmp_path: Path) -> None:
    folder = two_levels(tmp_path / "a.zarr")
    sections, stack = read(folder, path="s1")
    np.testing.assert_array_equal(sections, VOLUME[:, ::2, ::2])
    assert stack.pixel_size_nm == (8, 10)
    said = refused(folder, path="s2")
    assert "s2" in said
    assert "leads out" in refused(folder, path="../a.zarr/s0")


@pytest.mark.parametrize("version", VERSIONS)
def test_channels_and_times_are_chosen_or_refused(tmp_path: Path, version: str) -> None:
    both = np.stack([VOLUME, 255 - VOLUME])[None]
    axes = ({"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *SPACE)
    levels = {"0": (both, [1.0, 1, 40, 4, 4])}
    omero = {"channels": [{"label": "SE"}, {"label": "BSE"}]}
    folder = multiscale(tmp_path / "a", levels, version, axes, omero=omero)
    for channel, expected in enumerate(both[0]):
        sections, stack = read(folder, channel=channel)
        np.testing.assert_array_equal(sections, expected)
        assert stack.pixel_size_nm == (4, 4)
    said = refused(folder)
    assert "channel" in said
    assert "SE, BSE" in said
    assert "number 2" in refused(folder, channel=2)
    times = multiscale(tmp_path / "t", {"0": (both[0][:, None], [1.0, 1, 40, 4, 4])}, version, axes)
    assert "along its axis t" in refused(times)
    movie = np.stack([both[0], both[0]])
    assert "and 2 along" in refused(
        multiscale(tmp_path / "m", {"0": (movie, [1.0, 1, 40, 4, 4])}, version, axes), channel=0
    )


def test_a_group_of_one_array_is_that_array(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "a"), mode="w")
    group.create_array("volumes/raw", data=VOLUME)
    group.create_group("empty/deeper")
    np.testing.assert_array_equal(read(tmp_path / "a")[0], VOLUME)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_of_several_arrays_one_is_named(tmp_path: Path, zarr_format: Any) -> None:
    group = zarr.open_group(str(tmp_path / "a"), mode="w", zarr_format=zarr_format)
    group.create_array("volumes/raw", data=VOLUME)
    group.create_array("volumes/labels", data=VOLUME // 128)
    two_levels(tmp_path / "a" / "em")
    said = refused(tmp_path / "a")
    assert all(path in said for path in ("volumes/raw", "volumes/labels", "em"))
    assert "em/s0" not in said
    for path, expected in (("volumes/labels", VOLUME // 128), ("/volumes//raw/", VOLUME)):
        np.testing.assert_array_equal(read(tmp_path / "a", path=path)[0], expected)
    assert read(tmp_path / "a", path="em")[1].pixel_size_nm == (4, 5)
    assert read(tmp_path / "a", path="em/s1")[1].pixel_size_nm == (8, 10)
    assert "volumes/raw" in refused(tmp_path / "a", path="volumes/other")
    assert "em/s7" in refused(tmp_path / "a", path="em/s7")


def test_a_group_of_very_many_arrays_is_not_read_whole(tmp_path: Path) -> None:
    for name in range(30):
        folder = tmp_path / "a" / f"{name:02}"
        zarr.create_array(str(folder), data=VOLUME[:1])
    said = refused(tmp_path / "a")
    assert "09" in said
    assert "20" not in said


@pytest.mark.parametrize("version", VERSIONS)
def test_label_images_are_named_and_read_as_masks(tmp_path: Path, version: str) -> None:
    folder = two_levels(tmp_path / "images.zarr", version)
    assert label_images(LocalPlace.of(folder)) == ()
    for name in ("mito", "er"):
        two_levels(folder / "labels" / name, version, VOLUME // 100)
    assert label_images(LocalPlace.of(folder)) == ("labels/er", "labels/mito")
    labels = zarr.open_group(
        str(folder / "labels"), mode="a", zarr_format=2 if version == "0.4" else 3
    )
    listed = {"labels": ["mito"]}
    labels.attrs.update(listed if version == "0.4" else {"ome": {"version": version} | listed})
    assert label_images(LocalPlace.of(folder)) == ("labels/mito",)
    np.testing.assert_array_equal(read(folder)[0], VOLUME)
    masks, stack = read(folder, "mask", path="labels/mito")
    np.testing.assert_array_equal(masks, VOLUME // 100)
    assert stack.pixel_size_nm == (4, 5)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("outer", ["", "images.zarr/", "data/cell 3/images.zarr/"])
def test_a_zip_may_have_outer_folders(tmp_path: Path, outer: str, packing: int) -> None:
    folder = two_levels(tmp_path / "a")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for path in folder.rglob("*"):
            archive.write(path, f"{outer}{path.relative_to(folder)}")
            archive.writestr(f"__MACOSX/{outer}{path.relative_to(folder)}", b"left by a Mac")
        archive.writestr(f"{outer}.DS_Store", b"left by a Mac")
    np.testing.assert_array_equal(read(buffer)[0], VOLUME)
    np.testing.assert_array_equal(read(buffer, path="s1")[0], VOLUME[:, ::2, ::2])


def test_a_zip_of_two_arrays_names_their_folders(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a" / "images.zarr"), data=VOLUME)
    zarr.create_array(str(tmp_path / "a" / "masks.zarr"), data=VOLUME // 128)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in (tmp_path / "a").rglob("*"):
            archive.write(path, path.relative_to(tmp_path / "a"))
    said = refused(buffer)
    assert "images.zarr" in said
    assert "masks.zarr" in said
    np.testing.assert_array_equal(read(buffer, path="images.zarr")[0], VOLUME)


def test_a_zip_beyond_the_limits_of_old_zips_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    zarr.create_array(str(folder), data=VOLUME)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(1 << 16):
            archive.writestr(f"other/{number}", b"")
        for path in folder.rglob("*"):
            if path.is_file():
                with archive.open(str(path.relative_to(folder)), "w", force_zip64=True) as member:
                    member.write(path.read_bytes())
    np.testing.assert_array_equal(read(buffer)[0], VOLUME)


def test_several_label_images_are_told_until_one_is_named(tmp_path: Path) -> None:
    folder = two_levels(tmp_path / "images.zarr")
    for name in ("mito", "er"):
        two_levels(folder / "labels" / name)
    assert any("labels/er, labels/mito" in note for note in read(folder)[1].notes)
    named = read(folder, mask_path="labels/er")[1]
    assert not any("labels" in note for note in named.notes)


def test_a_mask_alone_in_its_store_needs_no_path(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a"), data=VOLUME)
    np.testing.assert_array_equal(read(tmp_path / "a", "mask", path="em/s0")[0], VOLUME)
    assert "em/s0" in refused(tmp_path / "a", path="em/s0")


def test_what_holds_no_array_is_told(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "a"))
    assert "no Zarr array" in refused(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "zarr.json").write_text("{")
    assert "zarr.json" in refused(tmp_path / "b")
    folder = two_levels(tmp_path / "c")
    attributes = json.loads((folder / ".zattrs").read_text())
    attributes["multiscales"][0]["datasets"][0]["path"] = "s9"
    (folder / ".zattrs").write_text(json.dumps(attributes))
    assert "no array s9" in refused(folder)
