"""Estimate what a crop takes before it is read: requests, bytes, files that are missing."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import prod

from models.data.openorganelle.geometry import Box
from models.data.openorganelle.plan import Crop, Plan, label_depth
from models.data.openorganelle.volume import Volume

_SAMPLE = 64
_AT_ONCE = 8


@dataclass(frozen=True)
class Cost:
    """The cost of reading a crop.

    ``num_requests`` counts the files that are read, or the parts of them. ``num_bytes`` is what
    they hold, and ``exact`` tells whether the sizes of all were asked for, not those of a sample.
    ``num_missing`` counts the files of the sample that do not exist: of a copy they may be lost,
    and writers leave out those that hold zeros alone. ``num_stored`` is the size of images and
    masks before they are compressed.
    """

    num_requests: int
    num_bytes: int
    exact: bool
    num_missing: int
    num_stored: int


def cost(plan: Plan, crop: Crop) -> Cost:
    """Estimate the cost of a crop from the sizes of its files; no voxel is read.

    Raises:
        PlaceError: the place does not answer.
    """
    read = [each.volume for each in crop.arrays if not each.is_empty]
    whole = Box((0, 0, 0), read[0].grid.shape)
    depth = label_depth(crop.arrays, crop.block)
    parts = [_array_cost(plan.em, crop.box, 1)]
    for volume in read:
        part = _array_cost(volume, whole, depth)
        # The array of a structure that lacks files is read once more, to count absent voxels.
        parts += [part] * (2 if part.num_missing and crop.arrays[0].encoding else 1)
    pixels = prod(crop.box.shape)
    return Cost(
        num_requests=sum(part.num_requests for part in parts),
        num_bytes=sum(part.num_bytes for part in parts),
        exact=all(part.exact for part in parts),
        num_missing=sum(part.num_missing for part in parts),
        num_stored=pixels * plan.em.dtype.itemsize + pixels,
    )


def _array_cost(volume: Volume, box: Box, multiple: int) -> Cost:
    num_files, num_chunks = volume.num_files(box), volume.num_chunks(box)
    sizes = _sizes(volume, box, num_files)
    known = [size for size in sizes if size is not None]
    num_bytes = sum(known) * num_files / len(sizes)
    num_requests, exact = num_files, len(sizes) == num_files
    if volume.file != volume.chunk:  # each slab reads the index of a file, and chunks of it
        num_requests = num_chunks
        num_requests += sum(volume.num_files(slab) for slab in volume.slabs(box, multiple))
        num_bytes *= num_chunks / (num_files * prod(volume.file) / prod(volume.chunk))
        exact = False
    return Cost(num_requests, round(num_bytes), exact, len(sizes) - len(known), 0)


def _sizes(volume: Volume, box: Box, num_files: int) -> Sequence[int | None]:
    step = -(-num_files // _SAMPLE)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(volume.size_of, islice(volume.files(box), 0, None, step)))
