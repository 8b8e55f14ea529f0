"""Folders are published to a real S3 server and to real folders."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from app.results.folder import SUMS, Destination
from models.data.readers import remote_store
from models.data.readers.places import DeniedError, PlaceError
from tests.s3 import S3Server

FILES = {"config.json": b"{}", "model/weights bin": bytes(range(256)) * 30_000, "model/a.b": b""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def sums() -> bytes:
    lines = (f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n" for name in sorted(FILES))
    return "".join(lines).encode()


def contents(s3: S3Server, prefix: str = "") -> dict[str, bytes]:
    listed = s3.client.list_objects_v2(Bucket="cells", Prefix=prefix).get("Contents", [])
    return {
        each["Key"].removeprefix(prefix): s3.client.get_object(Bucket="cells", Key=each["Key"])[
            "Body"
        ].read()
        for each in listed
    }


def writes(s3: S3Server) -> list[str]:
    """The keys that were written, once for each time."""
    listed = s3.client.list_object_versions(Bucket="cells").get("Versions", [])
    return [each["Key"] for each in listed]


@pytest.fixture
def versioned(s3: S3Server) -> S3Server:
    """A bucket that remembers each write."""
    s3.client.put_bucket_versioning(Bucket="cells", VersioningConfiguration={"Status": "Enabled"})
    return s3


def test_a_bucket_holds_each_file_and_the_digests(s3: S3Server, folder: Path) -> None:
    """The large file goes in several parts."""
    url = Destination("s3://cells/my results/").publish(folder, "job")
    assert url == "s3://cells/my results/job"
    assert contents(s3, "my results/job/") == FILES | {SUMS: sums()}


@pytest.mark.processes
def test_a_folder_holds_the_same_and_other_programs_can_check_it(
    tmp_path: Path, folder: Path
) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    assert Destination(str(shelf)).publish(folder, "job") == str(shelf / "job")
    copy = shelf / "job"
    found = {str(p.relative_to(copy)): p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    assert found == FILES | {SUMS: sums()}
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=copy, check=True)


def test_what_is_there_and_equal_is_not_sent_again(versioned: S3Server, folder: Path) -> None:
    for _ in range(2):
        Destination("s3://cells").publish(folder, "job")
    assert len(writes(versioned)) == len(FILES) + 1


def test_an_interrupted_copy_is_not_whole_and_goes_on(versioned: S3Server, folder: Path) -> None:
    left = 2

    def count_down() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Destination("s3://cells").publish(folder, "job", before_file=count_down)
    assert set(contents(versioned)) == {"job/config.json", "job/model/a.b"}
    Destination("s3://cells").publish(folder, "job")
    assert sorted(writes(versioned)) == sorted([f"job/{name}" for name in [*FILES, SUMS]])


def test_a_damaged_file_of_the_same_size_is_written_again(s3: S3Server, folder: Path) -> None:
    s3.put("cells", "job/config.json", b"{?")
    Destination("s3://cells").publish(folder, "job")
    assert contents(s3, "job/") == FILES | {SUMS: sums()}


def test_a_bucket_that_does_not_exist_is_told(s3: S3Server, folder: Path) -> None:
    del s3
    with pytest.raises(PlaceError, match="no such bucket"):
        Destination("s3://other").publish(folder, "job")


def test_a_bucket_that_may_not_be_written_is_told(
    s3: S3Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.user("s3:GetObject", "s3:ListBucket").items():
        monkeypatch.setenv(name, value)
    s3.deny_strangers()
    with pytest.raises(DeniedError, match="written at job/config.json"):
        Destination("s3://cells").publish(folder, "job")


def test_a_server_that_is_away_is_told(
    s3: S3Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del s3
    monkeypatch.setattr(remote_store, "RETRIES", {"max_retries": 0})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(PlaceError, match="no connection"):
        Destination("s3://cells").publish(folder, "job")


def test_a_folder_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    """A disk that is not mounted leaves an empty place."""
    with pytest.raises(PlaceError, match="mount"):
        Destination(str(tmp_path / "disk"))
    assert os.listdir(tmp_path) == []
