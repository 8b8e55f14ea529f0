"""Arrays of sections: Zarr reads what was written, as if it had written it itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from models.data.intake.section_arrays import write_array
from models.data.readers.limits import IMAGE_DTYPES


def values(shape: tuple[int, int], dtype: str) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("shape", [(1, 1), (40, 56), (512, 512), (513, 1030)])
def test_zarr_reads_what_was_written(tmp_path: Path, shape: tuple[int, int]) -> None:
    for dtype in IMAGE_DTYPES:
        array = values(shape, dtype)
        write_array(tmp_path / dtype, array)
        read = zarr.open_array(str(tmp_path / dtype), mode="r")
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read[:], array)


def test_folder_is_the_one_that_zarr_would_write(tmp_path: Path) -> None:
    array = values((600, 700), "uint16")
    write_array(tmp_path / "ours", array)
    chunks = (512, 512)
    zarr.create_array(str(tmp_path / "zarrs"), data=array, chunks=chunks, zarr_format=3)
    files = [
        {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "ours", tmp_path / "zarrs")
    ]
    assert files[0].keys() == files[1].keys()
    ours, zarrs = (json.loads(found["zarr.json"].read_bytes()) for found in files)
    assert ours == zarrs


def test_views_and_other_byte_orders_keep_their_values(tmp_path: Path) -> None:
    array = values((30, 20), "uint16")
    for number, view in enumerate((array.T, array[::-2, ::3], array.astype(">u2"))):
        write_array(tmp_path / f"{number}", view)
        np.testing.assert_array_equal(zarr.open_array(str(tmp_path / f"{number}"))[:], view)


def test_writing_again_replaces_all_values(tmp_path: Path) -> None:
    array = values((20, 600), "uint8")
    write_array(tmp_path / "a", array)
    write_array(tmp_path / "a", np.zeros_like(array))
    assert not np.asarray(zarr.open_array(str(tmp_path / "a"))[:]).any()
