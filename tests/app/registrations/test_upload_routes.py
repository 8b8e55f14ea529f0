"""Uploads in pieces: nothing is lost but what was not checked, and nothing is kept for ever."""

import base64
import fcntl
import hashlib
import os
import socket
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.settings import Settings
from app.storage import Storage
from tests.app.conftest import Serve
from tests.app.files import METADATA, grey, mask, png, problem, registered, wrong
from tests.processes import wait_for

TUS = {"Tus-Resumable": "1.0.0"}
PIECE = {"Content-Type": "application/offset+octet-stream"}


@pytest.fixture
def database_url(tmp_path: Path, sqlite_template: Path) -> str:
    """One engine: uploads are files."""
    path = tmp_path / "stylefilter.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


def begin(api: httpx.Client, num_bytes: int, name: str = "a.png") -> str:
    encoded = base64.b64encode(name.encode()).decode()
    headers = {"Upload-Length": str(num_bytes), "Upload-Metadata": f"filename {encoded},more eA=="}
    response = api.post("/uploads", headers=TUS | headers)
    assert response.status_code == 201, response.text
    assert response.headers["tus-resumable"] == "1.0.0"
    assert "GMT" in response.headers["upload-expires"]
    return response.headers["location"]


def piece(
    api: httpx.Client, path: str, offset: int, data: bytes, checksum: str | None = None
) -> httpx.Response:
    headers = TUS | PIECE | {"Upload-Offset": str(offset)}
    headers |= {} if checksum is None else {"Upload-Checksum": checksum}
    return api.patch(path, content=data, headers=headers)


def checksum(data: bytes, algorithm: str = "sha256") -> str:
    digest = hashlib.new(algorithm, data).digest()
    return f"{algorithm} {base64.b64encode(digest).decode()}"


def offset(api: httpx.Client, path: str) -> int:
    response = api.head(path, headers=TUS)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    return int(response.headers["upload-offset"])


def sent(api: httpx.Client, data: bytes, name: str = "a.png") -> UUID:
    path = begin(api, len(data), name)
    response = piece(api, path, 0, data, checksum(data))
    assert (response.status_code, response.headers["upload-offset"]) == (204, str(len(data)))
    return UUID(path.rpartition("/")[2])


def is_locked(path: Path) -> bool:
    """Whether a request writes to the file now."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_what_the_service_can_do_is_told(api: httpx.Client) -> None:
    response = api.options("/uploads")
    assert (response.status_code, response.headers["tus-version"]) == (204, "1.0.0")
    assert set(response.headers["tus-extension"].split(",")) >= {"creation", "expiration"}
    assert response.headers["tus-checksum-algorithm"] == "sha1,sha256"
    assert int(response.headers["tus-max-size"]) == Settings().max_upload_bytes


def test_a_dataset_is_made_of_uploads(api: httpx.Client, settings: Settings) -> None:
    images = [sent(api, png(grey(n)), f"folder/{n}.png") for n in range(2)]
    masks = [sent(api, png(mask()), "1.png")]
    uploads = {"images": [*map(str, images)], "masks": [*map(str, masks)]}
    response = api.post("/datasets", json=METADATA | {"uploads": uploads})
    report = registered(response)
    assert [(s["name"], s["has_mask"]) for s in report["sections"]] == [("0", False), ("1", True)]
    assert list(Storage(settings.data_folder).uploads.iterdir()) == []
    again = api.post("/datasets", json=METADATA | {"uploads": uploads})
    assert (again.status_code, again.json()["id"]) == (200, report["id"])


def test_a_job_takes_the_files_over(api: httpx.Client, settings: Settings) -> None:
    data = png(grey(1))
    body = METADATA | {"uploads": {"images": [str(sent(api, data))]}}
    job = api.post("/datasets", json=body, headers={"Prefer": "respond-async"})
    assert job.status_code == 202
    storage = Storage(settings.data_folder)
    (file,) = storage.upload(UUID(job.json()["id"])).iterdir()
    assert file.read_bytes() == data
    assert list(storage.uploads.iterdir()) == []
    assert api.post("/datasets", json=body).json()["id"] == job.json()["id"]


def test_uploads_stay_if_the_dataset_is_refused(api: httpx.Client, settings: Settings) -> None:
    upload = sent(api, png(grey(1)))
    body = METADATA | {"uploads": {"images": [str(upload)], "masks": [str(sent(api, b"x"))]}}
    assert "masks/a.png" in wrong(api.post("/datasets", json=body))
    registered(api.post("/datasets", json=METADATA | {"uploads": {"images": [str(upload)]}}))
    assert list((settings.data_folder / "incoming").iterdir()) == []


def test_a_file_comes_in_pieces(api: httpx.Client) -> None:
    data = os.urandom(3_000_000)
    path = begin(api, len(data))
    for start in range(0, len(data), 1_100_000):
        assert offset(api, path) == start
        part = data[start : start + 1_100_000]
        assert piece(api, path, start, part).status_code == 204
    facts = api.get(path, headers=TUS).json()
    assert facts == {"name": "a.png", "num_bytes": len(data), "offset": len(data)}
    refused = problem(piece(api, path, 0, b"x"), 409)
    assert str(len(data)) in refused["detail"]
    assert problem(piece(api, path, len(data), b"x"), 413)["code"] == "too_large"
    assert offset(api, path) == len(data)


def test_a_piece_with_another_checksum_is_not_kept(api: httpx.Client) -> None:
    path = begin(api, 10)
    refused = problem(piece(api, path, 0, b"01234", checksum(b"01235")), 460)
    assert (refused["code"], refused["title"]) == ("checksum_mismatch", "Checksum Mismatch")
    assert offset(api, path) == 0
    assert piece(api, path, 0, b"01234", checksum(b"01234", "sha1")).status_code == 204
    assert piece(api, path, 5, b"56789", checksum(b"56789")).status_code == 204
    for bad in ("md5 eA==", "sha256", "sha256 !"):
        assert list(wrong(piece(api, path, 10, b"", bad))) == ["header.Upload-Checksum"]


@pytest.mark.parametrize("checked", [False, True])
def test_a_broken_connection_costs_no_more_than_a_piece(
    api: httpx.Client, settings: Settings, checked: bool
) -> None:
    data = bytes(range(256)) * 4000
    path = begin(api, len(data))
    head = f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
    lines = TUS | PIECE | {"Upload-Offset": "0"}
    lines |= {"Upload-Checksum": checksum(data)} if checked else {}
    head += "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    half = len(data) // 2
    folder = Storage(settings.data_folder).uploads / path.rpartition("/")[2]
    with socket.create_connection((api.base_url.host, api.base_url.port or 80)) as connection:
        connection.sendall(head.encode() + data[:half])
        wait_for(lambda: is_locked(folder / "data"), "the start of the request")
        assert problem(piece(api, path, 0, b""), 423)["code"] == "locked"
    wait_for(lambda: not is_locked(folder / "data"), "the end of the request")
    start = offset(api, path)
    assert start <= half
    assert (start == 0) == checked
    assert piece(api, path, start, data[start:]).status_code == 204
    assert (folder / "data").read_bytes() == data


def test_another_version_of_the_protocol_is_refused(api: httpx.Client) -> None:
    path = begin(api, 1)
    for headers in ({}, {"Tus-Resumable": "0.2.2"}):
        refused = api.head(path, headers=headers)
        assert (refused.status_code, refused.headers["tus-version"]) == (412, "1.0.0")
    for method, where in (("POST", "/uploads"), ("PATCH", path), ("DELETE", path)):
        problem(api.request(method, where, headers=PIECE | {"Upload-Offset": "0"}), 412)


def test_headers_that_say_nothing_are_refused(api: httpx.Client) -> None:
    named = {"Upload-Metadata": "filename YQ=="}
    for metadata in ("name YQ==", "filename", "filename !", "filename //8=", "filename Lw=="):
        headers = TUS | {"Upload-Length": "1", "Upload-Metadata": metadata}
        assert list(wrong(api.post("/uploads", headers=headers))) == ["header.Upload-Metadata"]
    for length in ("-1", "x", str(10**30)):
        assert wrong(api.post("/uploads", headers=TUS | named | {"Upload-Length": length}))
    wrong(api.post("/uploads", headers=TUS | named))
    path = begin(api, 1)
    json = api.patch(path, json={}, headers=TUS | {"Upload-Offset": "0"})
    problem(json, 415)


def test_files_that_are_too_long_are_refused_at_the_start(settings: Settings, serve: Serve) -> None:
    small = serve(settings.model_copy(update={"max_upload_bytes": 1000}))
    headers = TUS | {"Upload-Length": "1001", "Upload-Metadata": "filename YQ=="}
    assert problem(small.post("/uploads", headers=headers), 413)["code"] == "too_large"
    large = serve(settings.model_copy(update={"max_upload_bytes": 1 << 50}))
    headers["Upload-Length"] = str(1 << 50)
    assert problem(large.post("/uploads", headers=headers), 507)["code"] == "disk_full"


def test_only_whole_uploads_are_registered(api: httpx.Client) -> None:
    path = begin(api, 10)
    upload = path.rpartition("/")[2]
    problem(api.post("/datasets", json=METADATA | {"uploads": {"images": [upload]}}), 409)
    unknown = {"uploads": {"images": [str(uuid4())]}}
    problem(api.post("/datasets", json=METADATA | unknown), 404)
    assert api.delete(path, headers=TUS).status_code == 204
    problem(api.delete(path, headers=TUS), 404)
    assert api.head(path, headers=TUS).status_code == 404
    both: dict[str, Any] = METADATA | unknown | {"folder": "cells"}
    assert list(wrong(api.post("/datasets", json=both))) == ["body.uploads"]


def test_an_upload_expires_after_a_day_without_a_piece(
    api: httpx.Client, settings: Settings
) -> None:
    storage = Storage(settings.data_folder)
    old, young = begin(api, 10), begin(api, 10)
    folder = storage.uploads / old.rpartition("/")[2]
    day_ago = time.time() - 24 * 3600 - 60
    os.utime(folder, (day_ago, day_ago))
    storage.sweep()
    assert api.head(old, headers=TUS).status_code == 404
    assert piece(api, young, 0, b"0123456789").status_code == 204


def test_a_piece_keeps_an_upload_from_expiring(api: httpx.Client, settings: Settings) -> None:
    storage = Storage(settings.data_folder)
    path = begin(api, 10)
    folder = storage.uploads / path.rpartition("/")[2]
    day_ago = time.time() - 24 * 3600 - 60
    os.utime(folder, (day_ago, day_ago))
    assert piece(api, path, 0, b"01234").status_code == 204
    storage.sweep()
    assert offset(api, path) == 5
