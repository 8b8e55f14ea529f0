"""Names as people mean them: natural order, Unicode, endings, and what systems leave behind."""

import unicodedata

import pytest

from models.data.names import (
    left_by_system,
    natural_key,
    stem,
    without_image_ending,
    without_mask_ending,
)


def test_numbers_in_names_are_sorted_by_value() -> None:
    wanted = ["a", "img_1", "img_02", "img_2", "img_2b", "img_10", "z1_2", "z01_10", "切片_1"]
    assert sorted(set(wanted), key=natural_key) == wanted
    long = ["9" * 4999, "1" + "0" * 5000]
    assert sorted(set(long), key=natural_key) == long
    assert sorted(["b", "B", "a"], key=natural_key) == ["B", "a", "b"]


def test_names_that_look_alike_are_equal() -> None:
    spellings = {unicodedata.normalize(form, "é_ü1.tif") for form in ("NFC", "NFD")}
    assert len(spellings) == 2
    assert {stem(f"images/{name}") for name in spellings} == {"é_ü1"}


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("images/._a.png", True),
        (".DS_Store", True),
        ("THUMBS.DB", True),
        ("desktop.ini", True),
        ("images/__MACOSX/a.png", True),
        ("@eaDir/a.png", True),
        ("a.png", False),
        ("thumbs.db.png", False),
    ],
)
def test_files_that_systems_leave(name: str, left: bool) -> None:
    assert left_by_system(name) is left


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("a_mask", "a"),
        ("a-Labels", "a"),
        ("a.seg", "a"),
        ("a ground truth", "a"),
        ("a_1_gt", "a_1"),
        ("mask", "mask"),
        ("unmask", "unmask"),
        ("_mask", "_mask"),
    ],
)
def test_endings_of_masks(name: str, bare: str) -> None:
    assert without_mask_ending(name) == bare


def test_endings_of_images() -> None:
    assert without_image_ending("a_raw") == "a"
    assert without_image_ending("straw") == "straw"
