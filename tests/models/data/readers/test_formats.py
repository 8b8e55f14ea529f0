"""The same volume in every format is the same sections; what is no format is refused in words."""

import io
from collections.abc import Callable
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
from PIL import Image

from models.data.readers import formats
from models.data.readers.formats import section_name
from models.data.readers.limits import ImageError
from tests.app.files import encoded, grey, png, tiff, write_zarr, zipped
from tests.models.data.readers.dm_files import dm
from tests.models.data.readers.files import MANY, little_memory, refusal
from tests.models.data.reading import read_sections

VOLUME = np.stack([grey(n, 24, 40, "uint16") for n in range(5)])

Write = Callable[[Path, np.ndarray], Path]
"""Writes a volume (N, H, W), or an array (H, W), below a folder, and returns the file's place."""


def _bytes(name: str, write: Callable[[np.ndarray], bytes]) -> Write:
    def to(folder: Path, volume: np.ndarray) -> Path:
        (folder / name).write_bytes(write(volume))
        return folder / name

    return to


def _saved(save: Callable[[io.BytesIO, np.ndarray], None], volume: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, volume)
    return buffer.getvalue()


def _mrc(folder: Path, volume: np.ndarray) -> Path:
    with mrcfile.new(folder / "a.mrc") as file:
        file.set_data(volume.view(np.int8) if volume.dtype == np.uint8 else volume)
        file.header.dmax = volume.max()  # tells that bytes have no sign
    return folder / "a.mrc"


def _chunks(volume: np.ndarray) -> tuple[int, ...]:
    return tuple(min(pair) for pair in zip(volume.shape, (4, 64, 64), strict=True))


def _hdf5(folder: Path, volume: np.ndarray) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("raw", data=volume, chunks=_chunks(volume), compression="gzip")
    return folder / "a.h5"


STACKS: dict[str, Write] = {
    "TIFF": _bytes("a.tif", tiff),
    "ImageJ": _bytes(
        "a.tif", lambda v: tiff(v, imagej=True, metadata={"axes": "ZYX"}, truncate=True)
    ),
    "OME-TIFF": _bytes("a.ome.tif", lambda v: tiff(v, ome=True, metadata={"axes": "ZYX"})),
    "big-endian BigTIFF": _bytes("a.tif", lambda v: tiff(v, bigtiff=True, byteorder=">")),
    "MRC": _mrc,
    "DM3": _bytes("a.dm3", dm),
    "DM4": _bytes("a.dm4", lambda v: dm(v, 4)),
    "HDF5": _hdf5,
    "NPY": _bytes("a.npy", lambda v: _saved(np.save, v)),
    "NPZ": _bytes("a.npz", lambda v: _saved(np.savez_compressed, v)),
    "Zarr": lambda folder, v: write_zarr(folder / "a.zarr", v, chunks=_chunks(v)),
}
"""Formats of volumes; whoever adds a format adds it here."""


@pytest.mark.parametrize("form", STACKS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_same_volume_in_every_format_has_the_same_pixels(
    tmp_path: Path, form: str, dtype: str
) -> None:
    volume = (VOLUME >> 8).astype(dtype) if dtype == "uint8" else VOLUME
    found = np.stack(list(read_sections(STACKS[form](tmp_path, volume), MANY)))
    np.testing.assert_array_equal(found, volume)
    assert found.dtype == np.dtype(dtype)


@pytest.mark.parametrize("form", STACKS)
def test_the_same_volume_in_every_format_is_cut_alike(tmp_path: Path, form: str) -> None:
    place = STACKS[form](tmp_path, VOLUME)
    for axis, number in (("y", 1), ("x", 2)):
        found = np.stack(list(read_sections(place, MANY, axis=axis)))
        np.testing.assert_array_equal(found, np.moveaxis(VOLUME, number, 0))
    found = np.stack(list(read_sections(place, MANY, start=1, stop=5, step=2)))
    np.testing.assert_array_equal(found, VOLUME[1:5:2])


@pytest.mark.parametrize("form", STACKS)
def test_sizes_are_checked_before_pixels_are_read(tmp_path: Path, form: str) -> None:
    place = STACKS[form](tmp_path, VOLUME)
    with pytest.raises(ImageError, match="24 x 40 px.* 959 pixels"):
        next(read_sections(place, 959))


@pytest.mark.parametrize("axis", ["z", "y"])
@pytest.mark.parametrize("form", STACKS)
def test_a_volume_takes_no_more_memory_than_a_slab_of_it(
    tmp_path: Path, form: str, axis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = np.tile(VOLUME[:1, :16, :16], (128, 16, 16))  # 16 MiB
    place = STACKS[form](tmp_path, volume)
    for _ in read_sections(place, MANY, axis=axis):  # what is loaded only once does not count
        break
    monkeypatch.setattr("models.data.readers.volume.SLAB_BYTES", 4 << 20)
    with little_memory(12 << 20):
        for number, section in enumerate(read_sections(place, MANY, axis=axis)):
            assert section[0, 0] == np.moveaxis(volume, "zyx".index(axis), 0)[number, 0, 0]


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("a.png", "a"),
        ("A.B.TIFF", "A.B"),
        ("stack.zarr.zip", "stack"),
        ("stack.zip", "stack"),
        ("folder/sub/a.tif", "a"),
        (r"C:\em\a.tif", "a"),
        (".png", ".png"),
        ("plain", "plain"),
        ("a.ome.tif", "a.ome"),
    ],
)
def test_names_images_and_masks_are_paired_by(file_name: str, name: str) -> None:
    assert section_name(file_name) == name


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        list(read_sections(tmp_path / "gone.png", MANY))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (encoded(Image.fromarray(grey(1)), "JPEG"), "JPEG"),
        (encoded(Image.fromarray(grey(1)), "BMP"), "BMP"),
        (encoded(Image.fromarray(grey(1)), "GIF"), "GIF"),
        (encoded(Image.fromarray(grey(1)), "WEBP"), "WebP"),
        (encoded(Image.fromarray(grey(1)), "JPEG2000"), "JPEG 2000"),
        (b"ZISRAWFILE" + bytes(100), "CZI"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"%PDF-1.7", "document"),
        (b"Rar!\x1a\x07", "archive"),
    ],
)
def test_other_formats_are_refused_by_their_names(data: bytes, word: str) -> None:
    assert word in refusal(data)


@pytest.mark.parametrize("data", [b"", b"\x89PN", b"hello", bytes(2000)])
def test_what_is_no_format_is_told_which_are(data: bytes) -> None:
    said = refusal(data)
    for each in formats.FORMATS:
        assert each.name in said


def test_a_file_that_unpacks_into_too_much_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = tiff(np.zeros((50, 64, 64), np.uint8), compression="zstd")
    monkeypatch.setattr("models.data.readers.limits.MAX_UNPACKED_BYTES", 10 * 4096)
    monkeypatch.setattr("models.data.readers.limits.MAX_UNPACKED_RATIO", 1)
    sections = read_sections(io.BytesIO(data), MANY)
    for _ in range(10):
        next(sections)
    with pytest.raises(ImageError, match="unpacks into more"):
        next(sections)


def test_a_zipped_zarr_is_read(tmp_path: Path) -> None:
    data = zipped(write_zarr(tmp_path / "a.zarr", VOLUME))
    np.testing.assert_array_equal(list(read_sections(io.BytesIO(data), MANY)), VOLUME)
    np.testing.assert_array_equal(next(read_sections(io.BytesIO(png(VOLUME[0])), MANY)), VOLUME[0])
