"""Buckets of a real S3 server, and web servers, as places."""

import socket
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from models.data.readers import remote, remote_store
from models.data.readers.places import DeniedError, Listing, PlaceError
from models.data.readers.remote import open_place, open_public_bucket
from models.data.readers.remote_store import is_url
from tests.s3 import ENVIRONMENT, S3Server

FILES = {"d/a b.txt": b"0123456789", "d/s0/c/0": b"zero", "d/s0/c/1": b"one", "e/x": b"x"}


@pytest.fixture
def bucket(s3: S3Server) -> S3Server:
    for key, data in FILES.items():
        s3.put("cells", key, data)
    return s3


@pytest.mark.usefixtures("bucket")
def test_files_of_a_bucket_are_read() -> None:
    place = open_place("s3://cells/d")
    assert place.name == "d"
    assert place.read("a b.txt", 10) == FILES["d/a b.txt"]
    assert place.at("s0/c").read("1", 10) == b"one"
    assert place.read_part("a b.txt", 3, 4) == b"3456"
    assert place.read_part("a b.txt", -3, 2) == b"78"
    assert place.read_part("a b.txt", -20, 20) == FILES["d/a b.txt"]
    assert place.read("none", 10) is None
    assert place.read_part("none", 0, 1) is None
    assert (place.size("a b.txt"), place.size("s0"), place.size("none")) == (10, None, None)
    with pytest.raises(PlaceError, match="more than 9 bytes"):
        place.read("a b.txt", 9)
    with pytest.raises(PlaceError, match="copied in part"):
        place.read_part("a b.txt", 20, 5)
    with pytest.raises(PlaceError, match="leads out"):
        place.read("../e/x", 10)


def test_a_file_of_a_bucket_is_opened_part_by_part(
    bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PART_BYTES", 4)
    place = open_place("s3://cells/d")
    for size in (0, 3, 4, 8, 10):
        bucket.put("cells", "d/file", b"0123456789"[:size])
        stream = place.open("file")
        assert stream is not None
        with stream:
            assert stream.seek(0, 2) == size
            stream.seek(0)
            assert stream.read() == b"0123456789"[:size]
    assert place.open("none") is None
    monkeypatch.setattr(remote, "_MAX_FILE_BYTES", 9)
    with pytest.raises(PlaceError, match="more than"):
        place.open("file")


@pytest.mark.usefixtures("bucket")
def test_folders_of_a_bucket_are_listed() -> None:
    place = open_place("s3://cells/d/")
    assert place.listing() == Listing(("s0",), ("a b.txt",))
    assert place.listing("s0/c") == Listing((), ("0", "1"))
    assert place.listing("none") == Listing()
    assert place.keys(3) == {"a b.txt", "s0/c/0", "s0/c/1"}
    assert place.keys(2) is None
    assert open_place("s3://cells").listing() == Listing(("d", "e"), ())


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_does_not_exist_is_told() -> None:
    place = open_place("s3://other/d")
    for use in (lambda: place.read("x", 5), place.listing, lambda: place.keys(5)):
        with pytest.raises(PlaceError, match="no such bucket"):
            use()


def test_wrong_credentials_are_told(bucket: S3Server) -> None:
    place = open_place("s3://cells/d")
    bucket.deny_strangers()
    for use in (lambda: place.read("a b.txt", 10), place.listing, lambda: place.keys(5)):
        with pytest.raises(PlaceError, match="AWS_ACCESS_KEY_ID"):
            use()


def test_a_public_bucket_is_read_whatever_the_environment_holds(
    bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("cells", "d/public", b"for all", ACL="public-read")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    place = open_public_bucket("cells", region="eu-west-1", endpoint=bucket.url).at("d")
    assert place.read("public", 10) == b"for all"
    with pytest.raises(DeniedError):
        place.read("a b.txt", 10)


def test_without_credentials_what_is_public_is_read(
    bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("cells", "d/public", b"for all", ACL="public-read")
    for name in ENVIRONMENT:
        monkeypatch.delenv(name)
    place = open_place("s3://cells/d")
    assert place.read("public", 10) == b"for all"
    with pytest.raises(DeniedError):
        place.read("a b.txt", 10)


def test_a_bucket_may_give_files_and_list_nothing(
    bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bucket.user("s3:GetObject").items():
        monkeypatch.setenv(name, value)
    bucket.deny_strangers()
    place = open_place("s3://cells/d")
    assert place.read("a b.txt", 10) == FILES["d/a b.txt"]
    assert place.listing() is None
    assert place.keys(10) is None


def test_files_of_a_web_server_are_read(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a b.txt").write_bytes(b"0123456789")
    handler = partial(_Quiet, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            place = open_place(f"http://127.0.0.1:{server.server_port}/d")
            assert place.read("a b.txt", 10) == b"0123456789"
            assert place.read("none", 10) is None
            assert place.listing() is None
            assert place.keys(10) is None
            with pytest.raises(PlaceError):  # this server knows no parts
                place.read_part("a b.txt", -3, 3)
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(PlaceError, match="no connection"):
        open_place("http://127.0.0.1:9/d").read("a", 10)


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    client = {"allow_http": True, "timeout": timedelta(seconds=0.1)}
    monkeypatch.setattr(remote_store, "CLIENT", client)
    monkeypatch.setattr(remote_store, "RETRIES", {"max_retries": 1})
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = open_place(f"http://127.0.0.1:{server.getsockname()[1]}/d")
        with pytest.raises(PlaceError, match="did not answer"):
            place.read("a", 10)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/d", "s3://"),
        ("s3:///d", "s3://"),
        ("https://user:secret@host/d", "environment"),
        ("https://host/d?versionId=3", "question mark"),
        ("s3://cells/../d", "leads out"),
    ],
)
def test_an_address_that_is_not_read_is_told(url: str, said: str) -> None:
    assert is_url(url)
    with pytest.raises(PlaceError, match=said) as refused:
        open_place(url)
    assert "secret" not in str(refused.value)


def test_a_path_is_no_url() -> None:
    assert not any(map(is_url, ("/data/em", "em/s3", "C:\\em", "a:b")))
