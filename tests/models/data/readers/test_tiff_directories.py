"""The list of pages of a TIFF costs no more than the file is long."""

import io
import struct

import numpy as np
import pytest

from models.data.readers.limits import ImageError
from models.data.readers.tiff_directories import directories
from tests.app.files import grey, tiff
from tests.models.data.readers.files import refusal, with_tags

STACK = np.stack([grey(n) for n in range(3)])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_pages_in_every_form(byteorder: str, bigtiff: bool) -> None:
    data = tiff(STACK, byteorder=byteorder, bigtiff=bigtiff)
    found = directories(io.BytesIO(data), len(data))
    assert [page.shape for page in found] == [(40, 56)] * 3
    assert not any(page.is_copy for page in found)


@pytest.mark.parametrize(("subfiletype", "is_copy"), [(0, False), (1, True), (2, False), (4, True)])
def test_a_page_says_that_it_is_a_copy(subfiletype: int, is_copy: bool) -> None:
    data = with_tags(tiff(STACK[0], subfiletype=1), NewSubfileType=subfiletype)
    assert [page.is_copy for page in directories(io.BytesIO(data), len(data))] == [is_copy]


def _with_next(data: bytes, place: int) -> bytes:
    (first,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[first : first + 2])
    end = first + 2 + 12 * count
    return data[:end] + struct.pack("<I", place) + data[end + 4 :]


def test_a_list_that_does_not_end_or_leads_out_is_refused() -> None:
    data = tiff(STACK[0])
    (first,) = struct.unpack("<I", data[4:8])
    assert "does not end" in refusal(_with_next(data, first))
    assert "cut off" in refusal(_with_next(data, len(data) + 100))
    assert "cut off" in refusal(data[: first + 20])


def test_pages_that_share_their_facts_are_refused_before_they_are_read() -> None:
    """Each of a thousand directories names the same eight megabytes of offsets."""
    shared = bytes(8 << 20)
    entry = struct.pack("<HHII", 273, 4, len(shared) // 4, 8)
    place = 8 + len(shared)
    parts = [b"II*\0", struct.pack("<I", place), shared]
    for number in range(1000):
        place += 18
        after = place if number < 999 else 0
        parts += [struct.pack("<H", 1), entry, struct.pack("<I", after)]
    data = b"".join(parts)
    with pytest.raises(ImageError, match="again and again"):
        directories(io.BytesIO(data), len(data))
