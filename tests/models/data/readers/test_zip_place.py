"""Zip files that lie, or would take long; what they share with folders is tested there."""

import io
import struct
import zipfile

import pytest

from models.data.readers.places import Listing, PlaceError
from models.data.readers.zip_place import ZipPlace


def archive(packing: int, **members: bytes) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer


def test_a_member_that_lies_about_its_size_is_cut() -> None:
    data = bytearray(archive(zipfile.ZIP_DEFLATED, a=bytes(1 << 20)).getvalue())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 64)
    place = ZipPlace(io.BytesIO(bytes(data)))
    with pytest.raises((zipfile.BadZipFile, PlaceError)):
        assert len(place.read("a", 100) or b"") > 100


def test_a_zip_that_is_packed_otherwise_is_refused() -> None:
    place = ZipPlace(archive(zipfile.ZIP_LZMA, a=b"x"))
    for use in (place.open, place.size, lambda key: place.read(key, 10)):
        with pytest.raises(PlaceError, match="deflate"):
            use("a")


def test_folders_in_each_other_end_somewhere() -> None:
    place = ZipPlace(archive(zipfile.ZIP_STORED, **{"a/" * 5000 + "b": b"x", "c": b"y"}))
    assert place.listing() == Listing(("a",), ("c",))
    assert place.listing("a/a") == Listing(("a",), ())
    assert place.listing("a/" * 100) == Listing()
