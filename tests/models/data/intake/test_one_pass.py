"""A domain from files and from arrays: what is stored, what stands for it, what is refused."""

import io
import os
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from models.data.description import Description
from models.data.intake.findings import DomainRefused
from models.data.intake.inputs import InputArray, InputFile, Inputs
from models.data.intake.layout import folder_inputs
from models.data.intake.one_pass import SectionsRead, store_domain
from models.data.intake.store import StoredDomain
from models.data.readers.stack import Ask, Stack
from tests.app.files import grey, mask, png, tells, tiff

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
    tells(problems(refused.value), {"images/a.png": ("neither a file nor a folder",)})


def test_every_offending_input_is_named_at_once(tmp_path: Path) -> None:
    images = [
        InputArray("a", grey(1)),
        InputArray("c", grey(2).astype(float)),
        InputArray("d", grey(3)[0]),
        InputArray("e", grey(4)[:0]),
        InputArray("f", np.stack([grey(5), grey(6)])),
    ]
    masks = [InputArray("f", np.stack([mask(), mask() * 7])), InputArray("g", mask())]
    with pytest.raises(DomainRefused) as refused:
        store_domain(Description(**CELLS), Inputs(images, masks), tmp_path / "d")
    said = problems(refused.value)
    assert list(said) == ["g", "c", "d", "e", "f", "mask_values"]
    for where, words in {
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


@dataclass(frozen=True)
class Volume:
    """A volume whose sections are made one at a time; so are its masks."""

    num_sections: int
    dtype: str
    name: str = "v"
    stem: str = "v"

    @contextmanager
    def open(self, ask: Ask) -> Iterator[Stack]:
        made = (grey(n, 256, 256) // (1 if ask.purpose == "image" else 200) for n in range(999))
        dtype = self.dtype if ask.purpose == "image" else "uint8"
        sections = (section.astype(dtype) for section in islice(made, self.num_sections))
        yield Stack(sections, self.num_sections)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_memory_does_not_grow_with_the_number_of_sections(tmp_path: Path, dtype: str) -> None:
    peaks = []
    for num in (8, 40):
        volume = Volume(num, dtype)
        inputs, description = Inputs([volume], [volume]), Description(**CELLS)
        tracemalloc.start()
        store_domain(description, inputs, tmp_path / f"{num}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    num_bytes = 256 * 256 * (np.dtype(dtype).itemsize + 1)
    assert peaks[1] - peaks[0] < 16 * num_bytes  # how many are under way at once varies


def test_groups_that_leave_out_a_section_with_a_mask_are_refused(tmp_path: Path) -> None:
    images, masks = {"a.png": png(grey(1))}, {"a.png": png(mask())}
    with pytest.raises(DomainRefused) as refused:
        stored(tmp_path, images, masks, groups={"one": ["b"]})
    assert list(problems(refused.value)) == ["groups"]


def padded(seed: int) -> np.ndarray:
    """Noise of a few grey values in 16 bits, with a strip of zeros below."""
    image = grey(seed, 80, 64).astype(np.uint16) // 8 + 30000
    image[64:] = 0
    return image


def test_windows_leave_out_what_is_no_data_and_a_histogram_is_kept(tmp_path: Path) -> None:
    images = {f"{n}.tif": tiff(padded(n)) for n in range(3)}
    found = stored(tmp_path, images, {}, tile_px=32)
    assert found.window == (30000, 30031)
    assert found.histogram is not None
    assert (found.histogram.low, sum(found.histogram.counts)) == (30000, 3 * 64 * 64)
    assert [note.code for note in found.notes] == ["padding"]
    # The rows from 64 on hold no data, so there are no tiles of them alone.
    places = [(tile.y0, tile.x0) for tile in found.tiles]
    assert places[:4] == [(0, 0), (0, 32), (32, 0), (32, 32)]
    assert len(found.tiles) == len(places) == 12


def test_blank_and_repeated_sections_are_unused(tmp_path: Path) -> None:
    blank = np.zeros((40, 56), np.uint8)
    stack = np.stack([grey(0), blank, grey(1), grey(1), grey(2)])
    found = stored(tmp_path, {"a.tif": tiff(stack)}, {})
    assert [section.split for section in found.sections] == [
        "train",
        "unused",
        "train",
        "unused",
        "train",
    ]
    assert {note.code for note in found.notes} == {"blank_sections", "repeated_sections"}


def test_a_crop_is_all_that_is_registered(tmp_path: Path) -> None:
    crop = {"y0": 3, "x0": 5, "height": 20, "width": 30}
    images, masks = {"a.png": png(grey(1))}, {"a.png": png(mask(organelle=180))}
    found = stored(tmp_path, images, masks, crop=crop)
    group = zarr.open_group(str(tmp_path / "d"), mode="r")
    np.testing.assert_array_equal(np.asarray(group["images/000000"]), grey(1)[3:23, 5:35])
    assert next(iter(found.tiles)).class_pixels == [20 * 30 - 7, 7]
    with pytest.raises(DomainRefused, match="row 50 and column 30"):
        stored(tmp_path / "e", images, {}, crop=crop | {"y0": 30, "x0": 0})


def test_inverted_images_keep_their_pixels_and_turn_their_window(tmp_path: Path) -> None:
    images = {"a.png": png(grey(1))}
    plain = stored(tmp_path / "plain", images, {})
    inverted = stored(tmp_path / "inverted", images, {}, invert=True)
    assert inverted.window == plain.window[::-1]
    assert inverted.digest != plain.digest
    named = stored(tmp_path / "named", images, {}, invert=True, intensity_window=(10, 20))
    assert named.window == (20, 10)


def test_percentiles_and_windows_of_each_section_on_request(tmp_path: Path) -> None:
    ramp = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    images = {"a.tif": tiff(ramp), "b.tif": tiff(ramp + 20_000)}
    found = stored(tmp_path / "p", images, {}, intensity_percentiles=(10, 80))
    assert found.window == (1999, 25999)
    each = stored(tmp_path / "s", images, {}, intensity_window_of="section")
    windows = [section.intensity_window for section in each.sections]
    assert windows == [(49, 9949), (20049, 29949)]


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "float32"])
def test_pixels_of_other_types_are_stored_as_they_are(tmp_path: Path, dtype: str) -> None:
    image = (grey(1, 100, 90) // 4).astype(dtype)
    found = store_domain(Description(**CELLS), Inputs([InputArray("a", image)]), tmp_path / "d")
    kept = zarr.open_group(str(tmp_path / "d"), mode="r")["images/000000"]
    np.testing.assert_array_equal(np.asarray(kept), image)
    assert found.dtype == dtype
    assert found.window == pytest.approx((0, 63), abs=0.1)


def test_masks_of_0_and_255_are_two_classes(tmp_path: Path) -> None:
    found = stored(tmp_path, {"a.png": png(grey(1))}, {"a.png": png(mask() * 255)})
    assert next(iter(found.tiles)).class_pixels == [2230, 10]
    kept = zarr.open_group(str(tmp_path / "d"), mode="r")["masks/000000"]
    np.testing.assert_array_equal(np.asarray(kept), mask())
    ignoring = stored(
        tmp_path / "e", {"a.png": png(grey(1))}, {"a.png": png(mask() * 255)}, ignore_value=255
    )
    assert next(iter(ignoring.tiles)).class_pixels == [2230, 0]
    assert ignoring.digest != found.digest


def test_progress_is_told_after_each_section_and_may_end_the_intake(tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []

    def on_section(read: SectionsRead) -> None:
        told.append((read.num_read, read.total, read.num_bytes))
        if read.num_read == 3:
            raise InterruptedError

    stack = np.stack([grey(n) for n in range(3)])
    inputs = Inputs([InputArray(name, stack ^ n) for n, name in enumerate("ab")])
    with pytest.raises(InterruptedError):
        store_domain(Description(**CELLS), inputs, tmp_path / "d", on_section=on_section)
    assert told == [(n, 4, n * 40 * 56) for n in (1, 2, 3)]


@pytest.mark.parametrize("size", [None, 4.0])
def test_the_size_of_pixels_may_be_that_of_the_files(tmp_path: Path, size: float | None) -> None:
    microns = {"axes": "ZYX", "PhysicalSizeX": 0.004, "PhysicalSizeY": 0.004}
    image = tiff(np.stack([grey(1), grey(2)]), ome=True, metadata=microns)
    found = stored(tmp_path, {"a.ome.tif": image}, {}, pixel_size_nm=size)
    assert found.pixel_size_nm == pytest.approx(4.0)
    assert found.pixel_size_from == ("file" if size is None else "request")
    with pytest.raises(DomainRefused) as refused:
        stored(tmp_path / "e", {"a.ome.tif": image}, {}, pixel_size_nm=40.0)
    assert list(problems(refused.value)) == ["pixel_size_nm"]


def test_sizes_of_single_sections_are_a_part_of_the_digest(tmp_path: Path) -> None:
    images = {"a.png": png(grey(1)), "b.png": png(grey(2))}
    plain = stored(tmp_path / "p", images, {})
    sized = stored(tmp_path / "s", images, {}, pixel_sizes_nm={"b": 8.0})
    assert [section.pixel_size_nm for section in sized.sections] == [None, (8.0, 8.0)]
    assert sized.digest != plain.digest


def test_masks_may_lie_in_the_file_of_their_image(tmp_path: Path) -> None:
    """Named by their path; a file of masks goes before, and an array in memory has no paths."""
    images, masks = np.stack([grey(n) for n in range(3)]), np.stack([mask()] * 3)
    np.savez(buffer := io.BytesIO(), raw=images, classes=masks)
    group = zarr.open_group(str(tmp_path / "f" / "images.zarr"), mode="w")
    group.create_array("em/raw", data=images)
    group.create_array("classes", data=masks)
    for number, (inputs, path) in enumerate(
        (
            (Inputs(files("images", {"a.npz": buffer.getvalue()})), "raw"),
            (folder_inputs(tmp_path / "f"), "em/raw"),
        )
    ):
        reading = {"path": path, "mask_path": "classes"}
        description = Description(**CELLS, reading=reading)
        found = store_domain(description, inputs, tmp_path / f"d{number}")
        assert [section.has_mask for section in found.sections] == [True] * 3
        kept = zarr.open_group(str(tmp_path / f"d{number}"), mode="r")
        np.testing.assert_array_equal(kept["images/000002"][:], images[2])
        np.testing.assert_array_equal(kept["masks/000002"][:], masks[2])
    beside = Inputs(files("images", {"a.npz": buffer.getvalue()}), [InputArray("a", masks * 0)])
    description = Description(**CELLS, reading={"path": "raw", "mask_path": "classes"})
    store_domain(description, beside, tmp_path / "beside")
    kept = zarr.open_group(str(tmp_path / "beside"), mode="r")
    assert not kept["masks/000000"][:].any()
    alone = Inputs([InputArray("a", images)])
    assert not store_domain(description, alone, tmp_path / "alone").sections[0].has_mask
