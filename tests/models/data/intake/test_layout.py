"""Images and masks among the files of a folder, by the usual names."""

from pathlib import Path

import numpy as np
import pytest

from models.data.intake.inputs import InputFile
from models.data.intake.layout import Layout, Tree, arranged, folder_inputs
from models.data.readers.places import LocalPlace, PlacedFile, PlaceError
from models.data.readers.remote import open_place
from models.data.readers.stack import Ask
from tests.app.files import grey, mask, png, write_zarr
from tests.models.data.openorganelle.server import served


def test_files_of_a_web_server_are_those_of_its_list(tmp_path: Path) -> None:
    for name in ("images/10.png", "images/2.png", "masks/2.png", "old/a.png", "files.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(grey(1)))
    write_zarr(tmp_path / "images.zarr", grey(1))
    listed = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    without_zarr = [f"./{name}" for name in listed if not name.startswith("images.zarr")]
    (tmp_path / "files.txt").write_text("\n".join(without_zarr) + "\n")
    with served(tmp_path) as server:
        place = open_place(server.url)
        inputs = folder_inputs(place)
        assert [each.name for each in inputs.images] == ["images/2.png", "images/10.png"]
        assert [each.name for each in inputs.masks] == ["masks/2.png"]
        assert inputs.passed_over == ("old",)
        with inputs.images[0].open(Ask(1 << 20)) as stack:
            np.testing.assert_array_equal(next(stack.sections), grey(1))
        (tmp_path / "files.txt").write_text("\n".join(f"./{name}" for name in listed))
        assert [each.name for each in folder_inputs(place).images] == ["stack.zarr"]
        for wrong in (b"images/../../a.png", b"images/\xff.png"):
            (tmp_path / "files.txt").write_bytes(wrong)
            with pytest.raises(PlaceError):
                folder_inputs(place)
        (tmp_path / "files.txt").unlink()
        assert [each.name for each in folder_inputs(place).images] == ["stack.zarr"]


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        (
            {"images": ["2.png", "10.png"], "masks": ["2.png"], "README.txt": None},
            (["images/2.png", "images/10.png"], ["masks/2.png"], ["README.txt"]),
        ),
        (
            {"raw": ["a.tif"], "labels": ["a.tif"], "old": []},
            (["raw/a.tif"], ["labels/a.tif"], ["old"]),
        ),
        (
            {"EM": ["a.tif"], "Segmentation": [".DS_Store", "a.tif"]},
            (["EM/a.tif"], ["Segmentation/a.tif"], ["Segmentation/.DS_Store"]),
        ),
        (
            {"images": ["a.png"], "raw": ["b.png"], "masks": [], "gt": ["a.png"]},
            (["images/a.png"], ["gt/a.png"], ["masks", "raw"]),
        ),
        (
            {"images.zarr": None, "images": ["a.png"], "labels.tif": None},
            (["images.zarr"], ["labels.tif"], ["images"]),
        ),
        (
            {"b.png": None, "a.png": None, "a_mask.png": None, "notes.txt": None},
            (["a.png", "b.png"], ["a_mask.png"], ["notes.txt"]),
        ),
        (
            {"a.png": None, "c_mask.png": None, "labels": ["a.png"]},
            (["a.png", "c_mask.png"], ["labels/a.png"], []),
        ),
        ({"notes.txt": None, "old": []}, ([], [], ["notes.txt", "old"])),
    ],
)
def test_images_and_masks_are_found(tree: Tree, found: tuple[list[str], ...]) -> None:
    assert arranged(tree) == Layout(*map(tuple, found))


def test_a_folder_is_read_as_its_files_are_named(tmp_path: Path) -> None:
    for name in ("images/b.png", "images/.DS_Store", "images/a.tif", "masks/b.png", "more/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    write_zarr(tmp_path / "images" / "volume.zarr", grey(1))
    found = folder_inputs(tmp_path)
    names = [(given.name, given.stem) for given in found.images]
    assert names == [
        ("images/a.tif", "a"),
        ("images/b.png", "b"),
        ("images/volume.zarr", "volume"),
    ]
    assert [given.name for given in found.masks] == ["masks/b.png"]
    assert list(found.passed_over) == ["images/.DS_Store", "more"]
    write_zarr(tmp_path / "masks.zarr", mask())
    assert folder_inputs(tmp_path).masks == [
        InputFile("stack.zarr", PlacedFile(LocalPlace.anywhere(tmp_path), "masks.zarr"))
    ]
