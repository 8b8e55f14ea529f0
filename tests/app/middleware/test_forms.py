"""Uploads that are cut off or hold what nobody asked for: nothing is lost in silence."""

import json
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.app.files import METADATA, grey, mask, png, problem, registered, tells, upload, wrong

HEADERS = {"content-type": "multipart/form-data; boundary=x"}
END = b"--x--\r\n"


def part(name: str, data: bytes, file: str | None = None) -> bytes:
    named = f'--x\r\nContent-Disposition: form-data; name="{name}"'
    named += f'; filename="{file}"' if file else ""
    return named.encode() + b"\r\n\r\n" + data + b"\r\n"


def sent(
    api: httpx.Client, parts: Iterable[bytes], path: str = "/datasets", end: bytes = END
) -> httpx.Response:
    return api.post(path, content=b"".join(parts) + end, headers=HEADERS)


DESCRIBED = part("metadata", json.dumps(METADATA).encode())
IMAGES = [part("images", png(grey(n)), f"{n}.png") for n in range(2)]
MASKS = [part("masks", png(mask()), f"{n}.png") for n in range(2)]
WHOLE = [DESCRIBED, *IMAGES, *MASKS]


@pytest.fixture
def database_url(tmp_path: Path, sqlite_template: Path) -> str:
    """One engine: a refusal happens before the database is reached."""
    path = tmp_path / "stylefilter.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


def test_a_whole_form_is_taken(api: httpx.Client) -> None:
    for n, end in enumerate((END, END + b"words after the end\r\n", b"--x--")):
        described = part("metadata", json.dumps(METADATA | {"name": f"{n}"}).encode())
        report = registered(sent(api, [described, *IMAGES, *MASKS], end=end))
        assert [section["has_mask"] for section in report["sections"]] == [True, True]


@pytest.mark.parametrize("end", [b"", b"\r\n", b"--x", b"--x-", b"--x\r\n", b"--y--\r\n"])
def test_a_form_without_its_end_is_refused(api: httpx.Client, end: bytes) -> None:
    for kept in range(1, len(WHOLE) + 1):
        tells(wrong(sent(api, WHOLE[:kept], end=end)), {"body": ("boundary",)})
    assert api.get("/datasets").json()["items"] == []


def test_a_form_that_is_cut_in_its_last_part_is_refused(api: httpx.Client) -> None:
    whole = b"".join(WHOLE)
    for cut in (1, 10, 100):
        assert wrong(sent(api, [whole[:-cut]], end=b"")).keys() == {"body"}
    assert api.get("/datasets").json()["items"] == []


def test_unknown_parts_are_named(api: httpx.Client) -> None:
    misspelt = sent(api, [DESCRIBED, *IMAGES, part("mask", png(mask()), "0.png"), part("a", b"b")])
    tells(wrong(misspelt), {"body.mask": ("masks",), "body.a": ("metadata",)})
    assert api.get("/datasets").json()["items"] == []


def test_a_part_that_is_meant_once_may_not_come_twice(api: httpx.Client) -> None:
    other = part("metadata", json.dumps(METADATA | {"name": "other"}).encode())
    assert wrong(sent(api, [DESCRIBED, other, *IMAGES])).keys() == {"body.metadata"}
    image = part("image", png(grey(1)), "a.png")
    model = part("model", str(uuid4()).encode())
    for parts, twice in (
        ([image, image, model], "body.image"),
        ([image, model, model], "body.model"),
    ):
        assert wrong(sent(api, parts, "/predict")).keys() == {twice}
    unknown = sent(api, [image, model, part("modle", b"x")], "/predict")
    tells(wrong(unknown), {"body.modle": ("model",)})
    assert wrong(sent(api, [image, model], "/predict", end=b"")).keys() == {"body"}
    assert "body.stylise" in wrong(sent(api, [image, model, part("stylise", b"x")], "/predict"))
    problem(sent(api, [image, model], "/predict"), 404)


def test_what_is_no_form(api: httpx.Client) -> None:
    for path in ("/datasets", "/predict"):
        headers = {"content-type": "multipart/form-data"}
        problem(api.post(path, content=b"x", headers=headers), 400)
        problem(api.post(path, content=b"--y\r\nnonsense", headers=HEADERS), 400)
        assert wrong(api.post(path, content=b"", headers=HEADERS)).keys() == {"body"}


def test_a_file_twice_is_refused_with_its_name(api: httpx.Client) -> None:
    twice = [("images", ("a.png", png(grey(n)))) for n in range(2)]
    refused = api.post("/datasets", data={"metadata": json.dumps(METADATA)}, files=twice)
    assert wrong(refused).keys() == {"images/a.png"}
    registered(upload(api, {"a.png": png(grey(0)), "b.png": png(grey(1))}))
