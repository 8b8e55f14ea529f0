"""Write and read the arrays of sections as Zarr lays them out (format 3), any number at a time.

For one small array, Zarr's own writing takes ten times as long as packing its pixels. What is
written here, Zarr reads as any array.

Legend: H height, W width.
"""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BytesCodec, ZstdCodec

from models.data.readers.limits import Array

_CHUNK_PX = 512
_PACKING = numcodecs.Zstd(level=0)


def write_array(folder: Path, array: Array) -> None:
    """Write an array (H, W) to a folder, which becomes a Zarr array in chunks of up to 512 px.

    An array of the same shape and dtype that is there already is overwritten.
    """
    chunk = _chunk(array.shape)
    for path, window in _chunks(folder, array.shape):
        block = array[window]
        if block.shape != chunk:  # at the edges, chunks stick out of the array
            missing = [(0, full - side) for full, side in zip(chunk, block.shape, strict=True)]
            block = np.pad(block, missing)
        little = np.ascontiguousarray(block, block.dtype.newbyteorder("<"))
        path.write_bytes(_PACKING.encode(little))
    (folder / "zarr.json").write_bytes(_metadata(array.shape, array.dtype.newbyteorder("=")))


def _chunk(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(min(_CHUNK_PX, side) for side in shape)


def _chunks(folder: Path, shape: tuple[int, ...]) -> Iterator[tuple[Path, tuple[slice, slice]]]:
    """Yield the file of each chunk, in a folder that exists, and the window that it holds."""
    (height, width), (down, across) = shape, _chunk(shape)
    for y0 in range(0, height, down):
        row = folder / f"c/{y0 // down}"
        os.makedirs(row, exist_ok=True)
        for x0 in range(0, width, across):
            yield row / f"{x0 // across}", (slice(y0, y0 + down), slice(x0, x0 + across))


@lru_cache(maxsize=64)  # most sections of a dataset are alike
def _metadata(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the file that describes the array, as Zarr writes it."""
    files: dict[str, Any] = {}
    zarr.create_array(
        files,
        shape=shape,
        dtype=dtype,
        chunks=_chunk(shape),
        serializer=BytesCodec(),
        compressors=ZstdCodec(level=0),
        zarr_format=3,
    )
    metadata: bytes = files["zarr.json"].to_bytes()
    return metadata
