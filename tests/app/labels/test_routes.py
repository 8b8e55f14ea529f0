"""Labels as a table over HTTP: asked for in several ways, and sent back."""

import csv
import io
from typing import Any

import httpx
import numpy as np
import pytest

from tests.app.files import grey, png, problem, registered, upload, wrong

CLASSES = ["background", "=nucleus", "a, b"]


@pytest.fixture
def dataset(api: httpx.Client) -> str:
    files = {"-1.png": png(grey(1, 32, 48)), "b.png": png(grey(2, 32, 48))}
    return str(registered(upload(api, files, class_names=CLASSES, tile_px=16))["id"])


def labels(api: httpx.Client, dataset: str) -> Any:
    return api.get(f"/datasets/{dataset}/labels").json()["items"]


def test_labels_that_are_exported_can_be_imported(api: httpx.Client, dataset: str) -> None:
    path = f"/datasets/{dataset}/labels"
    entries = [
        {"section": "-1", "tile": 2, "classes": {"=nucleus": "present", "a, b": "absent"}},
        {"section": "b", "tile": 5, "classes": dict.fromkeys(CLASSES, "absent")},
    ]
    api.put(path, json={"labels": entries})
    before = labels(api, dataset)
    table = api.get(path, headers={"Accept": "text/csv"})
    assert table.status_code == 200
    assert table.headers["content-type"].startswith("text/csv")
    assert f"labels_{dataset}.csv" in table.headers["content-disposition"]
    assert int(table.headers["content-length"]) == len(table.content)
    assert table.headers["etag"] == '"1"'
    lines = list(csv.reader(io.StringIO(table.content.decode("utf-8-sig"))))
    assert lines[0] == ["section", "tile", "background", "'=nucleus", "a, b"]
    assert lines[3] == ["'-1", "2", "", "1", "0"]
    assert lines[12] == ["b", "5", "0", "0", "0"]
    assert len(lines) == 13
    headers = {"content-type": "text/csv", "If-Match": '"1"'}
    again = api.put(path, content=table.content, headers=headers)
    assert (again.status_code, again.json()["changed_images"]) == (200, 0)
    unknown = [{"image": n, "classes": dict.fromkeys(CLASSES, "unknown")} for n in (2, 11)]
    api.put(path, json={"labels": unknown})
    assert labels(api, dataset) != before
    api.put(path, content=table.content, headers={"content-type": "text/csv"})
    assert labels(api, dataset) == before


def test_a_table_is_asked_for_by_a_header_or_the_query(api: httpx.Client, dataset: str) -> None:
    path = f"/datasets/{dataset}/labels"
    table, listed = "text/csv; charset=utf-8", "application/json"
    for accept, query, kind in (
        ("*/*", {}, listed),
        ("application/json, text/csv", {}, listed),
        ("text/html, text/csv;q=0.9, */*;q=0.1", {}, table),
        ("*/*", {"format": "csv"}, table),
        ("text/csv", {"format": "json"}, listed),
    ):
        answer = api.get(path, params=query, headers={"Accept": accept})
        assert answer.headers["content-type"] == kind
        assert answer.headers["etag"] == '"0"'
    problem(api.get(path, headers={"Accept": "text/html"}), 406)
    assert list(wrong(api.get(path, params={"format": "xlsx"}))) == ["query.format"]
    paged = wrong(api.get(path, params={"format": "csv", "limit": 5, "cursor": "x"}))
    assert list(paged) == ["query.cursor", "query.limit"]


def test_a_table_of_sections_without_tiles(api: httpx.Client) -> None:
    files = {f"s0{n}.png": png(grey(n)) for n in range(2)}
    dataset = registered(upload(api, files))["id"]
    path = f"/datasets/{dataset}/labels"
    empty = api.get(path, params={"format": "csv"}).content.decode("utf-8-sig")
    assert empty.split() == ["section,background,organelle", "s00,,", "s01,,"]
    filled = empty.replace("s01,,", "s01,1,0").encode()
    api.put(path, content=filled, headers={"content-type": "text/csv"})
    assert labels(api, dataset)[1]["classes"] == {"background": "present", "organelle": "absent"}


def test_many_labels_are_exported_whole(api: httpx.Client) -> None:
    files = {"a.png": png(grey(1, 800, 800))}
    dataset = registered(upload(api, files, tile_px=16))["id"]
    table = api.get(f"/datasets/{dataset}/labels", params={"format": "csv"})
    assert len(table.text.splitlines()) == 2501


def test_a_table_of_a_dataset_that_is_not_there(api: httpx.Client, dataset: str) -> None:
    api.delete(f"/datasets/{dataset}")
    problem(api.get(f"/datasets/{dataset}/labels", params={"format": "csv"}), 404)


def test_tile_sizes_are_measured_in_the_masks(api: httpx.Client) -> None:
    mask = np.zeros((128, 256), np.uint8)
    mask[:64, :128] = 1
    image = {"a.png": png(grey(1, 128, 256)), "b.png": png(grey(2, 128, 256))}
    dataset = registered(upload(api, image, {"a.png": png(mask)}, pixel_size_nm=8))["id"]
    path = f"/datasets/{dataset}/tile-sizes"
    answer = api.get(path)
    assert "max-age" in answer.headers["cache-control"]
    found = answer.json()
    assert (found["suggested_tile_px"], found["read"]) == (128, 1)
    assert [size["tile_px"] for size in found["sizes"]] == [64, 128, 256, 512]
    assert found["sizes"][1] == {
        "tile_px": 128,
        "tile_nm": 1024,
        "num_tiles": 2,
        "shares": {"background": 1, "organelle": 0.5},
    }
    few = api.get(path, params={"min_pixels": 5000}).json()["sizes"]
    assert [size["shares"]["organelle"] for size in few] == [0, 0.5, 1, 1]
    assert list(wrong(api.get(path, params={"min_pixels": 0}))) == ["query.min_pixels"]


def test_tile_sizes_need_masks(api: httpx.Client, dataset: str) -> None:
    path = f"/datasets/{dataset}/tile-sizes"
    assert "masks" in problem(api.get(path), 404)["detail"]
    api.delete(f"/datasets/{dataset}")
    assert problem(api.get(path), 404)
