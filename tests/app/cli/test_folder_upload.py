"""Folders that cannot be registered are refused before anything is sent."""

import json
from pathlib import Path

import pytest

from app.cli.folder_upload import FolderError, send_folder
from app.client.client import Client
from tests.app.files import grey, png

META = {"name": "cells", "classes": ["rest", "organelle"], "pixel_size_nm": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(grey(1)))
    (tmp_path / "meta.json").write_text(json.dumps(META))
    return tmp_path


def refused(folder: Path) -> str:
    """What is said of a folder, by a client that reaches no service."""
    with Client("http://127.0.0.1:1") as client, pytest.raises(FolderError) as error:
        send_folder(client, folder, tile_px=None)
    return str(error.value)


def test_a_folder_without_images(folder: Path) -> None:
    (folder / "images" / "a.png").unlink()
    assert str(folder) in refused(folder)


def test_a_folder_without_meta_json(folder: Path) -> None:
    (folder / "meta.json").unlink()
    assert str(folder / "meta.json") in refused(folder)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("classes", ["rest"], "class_names"),
        ("name", "", "name"),
        ("pixel_size_nm", 0, "pixel_size_nm"),
        ("splits", {"train": [3]}, "splits"),
    ],
)
def test_a_meta_json_that_describes_no_dataset(
    folder: Path, field: str, value: object, named: str
) -> None:
    (folder / "meta.json").write_text(json.dumps(META | {field: value}))
    said = refused(folder)
    assert str(folder / "meta.json") in said
    assert named in said
