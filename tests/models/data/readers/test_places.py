"""Folders and zip files as places: what is read, and what is not."""

import io
import os
import socket
import zipfile
from pathlib import Path

import pytest

from models.data.readers.places import (
    DeniedError,
    Listing,
    LocalPlace,
    Place,
    PlaceError,
    joined,
    placed,
)
from models.data.readers.zip_place import ZipPlace

FILES = {"a.txt": b"0123456789", "s0/c/0": b"zero", "s0/c/1": b"one", "s1/zarr.json": b"{}"}


def local(folder: Path) -> LocalPlace:
    for key, data in FILES.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return LocalPlace.of(folder)


def zipped(packing: int, prefix: str = "") -> ZipPlace:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for key, data in FILES.items():
            archive.writestr(prefix + key, data)
        archive.writestr("__MACOSX/._a.txt", b"resource fork")
        archive.mkdir("empty")
    return ZipPlace(buffer)


@pytest.fixture(params=["folder", "zip stored", "zip deflated", "folder in a zip"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return local(tmp_path / "d")
    if request.param == "folder in a zip":
        return zipped(zipfile.ZIP_DEFLATED, "outer/d/").at("outer/d")
    return zipped(zipfile.ZIP_DEFLATED if "deflated" in request.param else zipfile.ZIP_STORED)


def test_files_and_parts_of_them_are_read(place: Place) -> None:
    assert place.read("a.txt", 10) == FILES["a.txt"]
    assert place.at("s0").at("c").read("1", 10) == b"one"
    assert place.read_part("a.txt", 3, 4) == b"3456"
    assert place.read_part("a.txt", -3, 2) == b"78"
    assert place.read_part("a.txt", 8, 5) == b"89"
    assert place.read_part("a.txt", 20, 5) == b""
    assert [place.size(key) for key in ("a.txt", "s0/c/1", "s0", "none")] == [10, 3, None, None]


def test_an_open_file_is_read_from_any_position(place: Place) -> None:
    stream = place.open("a.txt")
    assert stream is not None
    with stream:
        assert stream.seek(0, 2) == 10
        stream.seek(4)
        assert stream.read(3) == b"456"
    for key in ("b.txt", "s0", "a.txt/x"):
        assert place.open(key) is None
        assert place.size(key) is None
    assert place.size("a.txt") == 10


def test_a_file_of_a_user_may_be_a_link(tmp_path: Path) -> None:
    local(tmp_path / "d")
    (tmp_path / "link").symlink_to(tmp_path / "d")
    (tmp_path / "d" / "far").symlink_to(tmp_path / "far.txt")
    (tmp_path / "far.txt").write_bytes(b"far")
    for path in ("link/a.txt", "d/far"):
        found = placed(tmp_path / path)
        assert found.place.read(found.key, 10) == (tmp_path / path).read_bytes()
    assert LocalPlace.anywhere(tmp_path / "link").read("far", 10) == b"far"
    with pytest.raises(PlaceError, match="no such file"):
        placed(tmp_path / "none")


def test_what_does_not_exist_is_none(place: Place) -> None:
    for key in ("b.txt", "s0", "s0/c", "a.txt/x", "none/x"):
        assert place.read(key, 10) is None
        assert place.read_part(key, 0, 10) is None
    assert place.listing("none") == Listing()


def test_a_file_above_the_limit_is_refused(place: Place) -> None:
    with pytest.raises(PlaceError, match="more than 9 bytes"):
        place.read("a.txt", 9)


def test_folders_are_listed(place: Place) -> None:
    assert place.listing("s0/c") == Listing((), ("0", "1"))
    listing = place.listing()
    assert listing is not None
    assert (set(listing.folders) - {"empty"}, listing.files) == ({"s0", "s1"}, ("a.txt",))
    assert place.keys(4) == FILES.keys()
    assert place.at("s0").keys(4) == {"c/0", "c/1"}
    assert place.keys(3) is None


@pytest.mark.parametrize("key", ["../b", "a/../../b", "a/..", "x\0"])
def test_a_key_does_not_lead_out(place: Place, key: str) -> None:
    for use in (place.at, lambda key: place.read(key, 10), place.listing):
        with pytest.raises(PlaceError, match="leads out"):
            use(key)
    assert joined("/a//b/", "./c") == "a/b/c"


@pytest.mark.parametrize(
    ("link", "to"),
    [
        ("link.txt", "out/secret.txt"),
        ("s2", "out"),
        ("s3", "link to out"),
        ("s0/c/2", "out/secret.txt"),
        ("s0/d", "out"),
    ],
)
def test_links_out_of_the_root_are_refused_at_each_level(
    tmp_path: Path, link: str, to: str
) -> None:
    place = local(tmp_path / "d")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret.txt").write_bytes(b"secret")
    (tmp_path / "link to out").symlink_to(tmp_path / "out")
    (tmp_path / "d" / link).symlink_to(tmp_path / to)
    key = link if to.endswith(".txt") else f"{link}/secret.txt"
    for read in (
        lambda: place.read(key, 10),
        lambda: place.read_part(key, 0, 3),
        lambda: place.open(key),
        lambda: place.check(key),
    ):
        with pytest.raises(PlaceError, match=f"{key}.* leads out"):
            read()
    with pytest.raises(PlaceError, match="leads out"):
        place.keys(100)
    if not to.endswith(".txt"):
        with pytest.raises(PlaceError, match="leads out"):
            place.listing(link)


def test_the_root_bounds_a_folder_that_is_itself_a_link(tmp_path: Path) -> None:
    local(tmp_path / "other")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "images").symlink_to(tmp_path / "other")
    images = LocalPlace.of(tmp_path / "d").at("images")
    for read in (images.listing, lambda: images.read("a.txt", 10), lambda: images.keys(10)):
        with pytest.raises(PlaceError, match="leads out"):
            read()
    assert LocalPlace(tmp_path / "d" / "images", tmp_path).read("a.txt", 10) == FILES["a.txt"]


def test_links_inside_of_the_root_are_followed(tmp_path: Path) -> None:
    place = local(tmp_path / "d")
    (tmp_path / "d" / "again").symlink_to("s0")
    assert place.read("again/c/1", 10) == b"one"
    assert place.at("again").keys(10) == {"c/0", "c/1"}


def test_links_to_nowhere_and_in_circles_are_told(tmp_path: Path) -> None:
    place = local(tmp_path / "d")
    for name in ("lost", "loop"):
        (tmp_path / "d" / name).symlink_to(tmp_path / "d" / "loop")
        for use in (lambda name: place.read(name, 10), place.check):
            with pytest.raises(PlaceError, match=f"{name}.* leads nowhere"):
                use(name)
        assert name in (place.listing() or Listing()).files
        with pytest.raises(PlaceError, match="leads nowhere"):
            place.keys(10)
        (tmp_path / "d" / name).unlink()
    (tmp_path / "d" / "s0" / "up").symlink_to(tmp_path / "d")
    with pytest.raises(PlaceError, match="folders in each other"):
        place.keys(1 << 20)


def test_pipes_and_sockets_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = local(tmp_path / "d")
    os.mkfifo(tmp_path / "d" / "pipe")
    monkeypatch.chdir(tmp_path / "d")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name in ("pipe", "socket"):
            for use in (lambda name: place.read(name, 10), place.open, place.check):
                with pytest.raises(PlaceError, match=f"{name} is neither"):
                    use(name)


def test_what_may_not_be_read_is_told(anybody: Path) -> None:
    place = local(anybody)
    (anybody / "a.txt").chmod(0)
    (anybody / "s0").chmod(0)
    for use in (lambda name: place.read(name, 10), place.open, place.check):
        with pytest.raises(DeniedError, match=r"permission.*a\.txt"):
            use("a.txt")
    with pytest.raises(DeniedError, match=r"permission.*s0"):
        place.listing("s0")
