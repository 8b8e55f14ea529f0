"""A domain from files and from arrays: what is stored, what stands for it, what is refused."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from models.data.description import Description
from models.data.findings import DomainRefused
from models.data.inputs import InputArray, InputFile, Inputs
from models.data.intake import store_domain
from models.data.layout import folder_inputs
from models.data.store import StoredDomain
from tests.app.files import grey, mask, png, tiff

CELLS: dict[str, Any] = {"class_names": ["background", "organelle"], "pixel_size_nm": 4.0}


def files(kind: str, contents: Mapping[str, bytes]) -> list[InputFile]:
    return [InputFile(f"{kind}/{name}", io.BytesIO(data)) for name, data in contents.items()]


def stored(
    folder: Path, images: Mapping[str, bytes], masks: Mapping[str, bytes], **facts: object
) -> StoredDomain:
    description = Description(**(CELLS | facts))
    inputs = Inputs(files("images", images), files("masks", masks))
    return store_domain(description, inputs, folder / "d")


def problems(error: DomainRefused) -> dict[str, str]:
    return {problem.where: problem.message for problem in error.problems}


def test_digests_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """Trained models and saved states name their data by these digests."""
    images = {"b.png": png(grey(1)), "a.tif": tiff(grey(2, 24, 30))}
    plain = stored(tmp_path / "plain", images, {"b.png": png(mask())})
    assert plain.digest == "9ea33139a70116cb48196e0b1bfbfd35683d50d73690f855ecb2d65e9be5fcd9"
    stack = np.stack([grey(n, 32, 48, "uint16") for n in range(3)])
    masks = np.stack([mask(32, 48, organelle=n).astype(np.uint16) for n in range(3)])
    masks[:, 20:] = 999
    described = stored(
        tmp_path / "described",
        {"v.tif": tiff(stack)},
        {"v.tif": tiff(masks)},
        pixel_size_nm=2.5,
        tile_px=20,
        ignore_value=999,
        intensity_window=(100, 20000),
        groups={"one": ["v/0000", "v/0002"], "two": ["v/0001"]},
        splits={"train": ["v/0000"], "test": ["v/0001"]},
    )
    assert described.digest == "9f430bdf46733656236acbd682f8ad0ccc166b4090189628eaecc3d18fde6396"


def test_what_is_stored_and_found(tmp_path: Path) -> None:
    masks = mask(organelle=17)
    masks[39] = 255
    found = stored(tmp_path, {"a.png": png(grey(1))}, {"a.png": png(masks)}, tile_px=24)
    group = zarr.open_group(str(tmp_path / "d"), mode="r")
    np.testing.assert_array_equal(np.asarray(group["images/000000"]), grey(1))
    np.testing.assert_array_equal(np.asarray(group["masks/000000"]), masks)
    (section,) = found.sections
    assert (section.index, section.name, section.height, section.width) == (0, "a", 40, 56)
    assert (section.split, section.has_mask, section.group) == ("train", True, None)
    tiles = [(t.section, t.y0, t.x0, t.height, t.width, t.class_pixels) for t in found.tiles]
    assert tiles[::5] == [(0, 0, 0, 24, 24, [559, 17]), (0, 24, 48, 16, 8, [120, 0])]
    assert (found.dtype, found.num_bytes) == ("uint8", 2 * 40 * 56)


@pytest.mark.parametrize("order", ["=", ">"])
def test_arrays_and_files_of_the_same_pixels_are_the_same_domain(
    tmp_path: Path, order: str
) -> None:
    stack = np.stack([grey(n, dtype="uint16") for n in range(2)])
    from_file = stored(tmp_path / "file", {"a.tif": tiff(stack)}, {})
    array = InputArray("a", stack.astype(stack.dtype.newbyteorder(order)))
    from_array = store_domain(Description(**CELLS), Inputs([array]), tmp_path / "array")
    assert from_array == from_file


def test_a_pipe_in_a_folder_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    os.mkfifo(tmp_path / "images" / "a.png")
    with pytest.raises(DomainRefused) as refused:
        store_domain(Description(**CELLS), folder_inputs(tmp_path), tmp_path / "d")
    assert problems(refused.value) == {"images/a.png": "is not a file"}


def test_every_offending_input_is_named_at_once(tmp_path: Path) -> None:
    images = [
        InputArray("a", grey(1)),
        InputArray("b", grey(1)),
        InputArray("c", grey(2).astype(float)),
        InputArray("d", grey(3)[0]),
        InputArray("e", grey(4)[:0]),
        InputArray("f", np.stack([grey(5), grey(6)])),
    ]
    masks = [InputArray("f", np.stack([mask(), mask() * 7])), InputArray("g", mask())]
    with pytest.raises(DomainRefused) as refused:
        store_domain(Description(**CELLS), Inputs(images, masks), tmp_path / "d")
    said = problems(refused.value)
    assert list(said) == ["g", "b", "c", "d", "e", "f", "mask_values"]
    for where, words in {
        "b": "same pixels as a",
        "c": "float64",
        "d": "shape (56,)",
        "e": "empty",
        "f": "section f/0001: holds values that no class has: 7 (10 px)",
        "g": "no image",
    }.items():
        assert words in said[where]


def test_a_section_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    array = InputArray("a", grey(1))
    store_domain(Description(**CELLS), Inputs([array]), tmp_path / "d", max_pixels=40 * 56)
    with pytest.raises(DomainRefused, match="2239 pixels"):
        store_domain(Description(**CELLS), Inputs([array]), tmp_path / "e", max_pixels=40 * 56 - 1)


def test_groups_that_leave_out_a_section_with_a_mask_are_refused(tmp_path: Path) -> None:
    images, masks = {"a.png": png(grey(1))}, {"a.png": png(mask())}
    with pytest.raises(DomainRefused) as refused:
        stored(tmp_path, images, masks, groups={"one": ["b"]})
    assert list(problems(refused.value)) == ["groups"]
