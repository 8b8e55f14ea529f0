"""Files that are damaged, or hold less than they say, and what readers make of them."""

import io
import random
import struct
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import tifffile

from models.data.readers.limits import ImageError
from tests.models.data.reading import read_sections

MANY = 1 << 20
"""More pixels than any section here has."""

BOMB_BYTES = 64 << 20
ZEROS = np.zeros(BOMB_BYTES, np.uint8)


@contextmanager
def little_memory(limit: int = BOMB_BYTES // 8) -> Iterator[None]:
    """What happens inside takes less than an eighth of what a bomb unpacks into."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def refusal(data: bytes, max_pixels: int = MANY, **options: object) -> str:
    """What is said of a file that is refused, before it takes memory."""
    with pytest.raises(ImageError) as refused, little_memory():
        list(read_sections(io.BytesIO(data), max_pixels, **options))
    return str(refused.value)


def refused_when_damaged(files: Sequence[bytes], times: int = 60, seed: int = 0) -> float:
    """Damage each file at random: nothing but an ImageError may come of it.

    Returns the share of damaged files that were refused. Most bytes are changed near the start,
    where headers are.
    """
    rng, refused = random.Random(seed), 0
    for whole in files:
        for _ in range(times):
            damaged = bytearray(whole)
            if rng.random() < 0.3:
                del damaged[rng.randrange(len(damaged)) :]
            for _ in range(rng.randint(1, 6)):
                if damaged:
                    reach = len(damaged) if rng.random() < 0.3 else min(len(damaged), 400)
                    damaged[rng.randrange(reach)] = rng.choice((0, 1, 255, rng.randrange(256)))
            try:
                for _ in read_sections(io.BytesIO(damaged), MANY):
                    pass
            except ImageError:
                refused += 1
    return refused / (times * len(files))


def with_tags(data: bytes, **changes: int) -> bytes:
    """A little-endian TIFF whose first page's tags (one LONG each) have other values."""
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = file.pages[0].tags
        for name, value in changes.items():
            tag = tags[name]
            changed[tag.offset : tag.offset + 12] = struct.pack("<HHII", tag.code, 4, 1, value)
    return bytes(changed)
