"""Registered datasets: listed, looked at, deleted; and the registered images as stored."""

import base64
import json
from collections.abc import Iterator
from uuid import uuid4

import httpx
import numpy as np
import pytest

from app.database import Database
from app.settings import Settings
from app.tables import JobState
from tests.app.files import grey, mask, pixels, png, problem, registered, tiff, upload, wrong
from tests.app.records import add_job, add_model
from tests.processes import wait_for


def pages(api: httpx.Client, path: str, limit: int, **query: str) -> Iterator[list[dict]]:
    """The pages of a list, asked for one by one."""
    cursor = None
    while True:
        params = {"limit": limit, **query} | ({"cursor": cursor} if cursor else {})
        page = api.get(path, params=params).json()
        yield page["items"]
        cursor = page["next"]
        if cursor is None:
            return


def test_pages_stay_in_place_while_datasets_come_and_go(api: httpx.Client) -> None:
    ids = [
        registered(upload(api, {"a.png": png(grey(n, 16, 16))}, name=str(n)))["id"]
        for n in range(5)
    ]
    listed = pages(api, "/datasets", 2)
    first = next(listed)
    registered(upload(api, {"a.png": png(grey(9, 16, 16))}))
    assert api.delete(f"/datasets/{ids[3]}").status_code == 204  # the cursor's own dataset
    assert [d["id"] for d in first] == [ids[4], ids[3]]
    assert [[d["id"] for d in page] for page in listed] == [[ids[2], ids[1]], [ids[0]]]
    assert "sections" not in first[0]
    whole = api.get("/datasets", params={"limit": 5}).json()
    assert (len(whole["items"]), whole["next"]) == (5, None)


def test_images_are_paged_by_number(api: httpx.Client) -> None:
    report = registered(upload(api, {"a.png": png(grey(1, 64, 64))}, tile_px=16))
    path = f"/datasets/{report['id']}/images"
    assert [[i["n"] for i in page] for page in pages(api, path, 6)] == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10, 11],
        [12, 13, 14, 15],
    ]


def cursor_of(key: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def list_of(cursor: str) -> str:
    """What a cursor holds beside its key: the list that gave it."""
    return str(json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))[0])


def test_a_cursor_that_is_none_is_refused(api: httpx.Client) -> None:
    report = registered(upload(api, {"a.png": png(grey(1, 64, 64))}, tile_px=16))
    registered(upload(api, {"a.png": png(grey(2))}))
    images = f"/datasets/{report['id']}/images"
    for path in ("/datasets", images, "/jobs", "/models"):
        right = api.get(path, params={"limit": 1}).json()["next"]
        of = "" if right is None else list_of(right)
        keys: list[object] = [10**20, -1, {}, "x", None, True, 1.5, 0.0, str(uuid4())]
        made = [cursor_of([of, key]).rstrip("=") for key in keys]
        made += [cursor_of(key) for key in (*keys, [of], [of, 0, 0])]
        made += [] if right is None else [f"{right}=", f"{right} "]
        for cursor in ("", "x", "é", "[[[", "A" * 101, *made):
            assert list(wrong(api.get(path, params={"cursor": cursor}))) == ["query.cursor"]


def test_a_cursor_of_another_list_is_refused(api: httpx.Client) -> None:
    for n in range(2):
        registered(upload(api, {"a.png": png(grey(n))}))
    cursor = api.get("/datasets", params={"limit": 1}).json()["next"]
    for path in ("/jobs", "/models"):
        assert list(wrong(api.get(path, params={"cursor": cursor}))) == ["query.cursor"]


def test_a_cursor_of_another_datasets_images_is_refused(api: httpx.Client) -> None:
    first, second = (
        f"/datasets/{registered(upload(api, {'a.png': png(grey(n, 64, 64))}, tile_px=16))['id']}"
        for n in range(2)
    )
    cursor = api.get(f"{first}/images", params={"limit": 2}).json()["next"]
    assert api.get(f"{first}/labels", params={"cursor": cursor}).json()["items"][0]["image"] == 2
    for path in (f"{second}/images", f"{second}/labels", f"{first}/labels/history"):
        assert list(wrong(api.get(path, params={"cursor": cursor}))) == ["query.cursor"]


def test_limits_are_bounded(api: httpx.Client) -> None:
    for path in ("/datasets", "/jobs", "/models"):
        for limit in (0, 1001, "many"):
            assert list(wrong(api.get(path, params={"limit": limit}))) == ["query.limit"]
        assert api.get(path, params={"limit": 1000}).json() == {"items": [], "next": None}


def test_preview_is_the_window_of_the_tile_as_stored(api: httpx.Client) -> None:
    image, labels = grey(1, dtype="uint16"), mask(organelle=80)
    labels[30:, 50:] = 255
    report = registered(upload(api, {"a.tif": tiff(image)}, {"a.tif": tiff(labels)}, tile_px=24))
    path = f"/datasets/{report['id']}/images"
    for item in api.get(path).json()["items"]:
        window = np.s_[
            item["y0"] : item["y0"] + item["height"], item["x0"] : item["x0"] + item["width"]
        ]
        tile = api.get(f"{path}/{item['n']}")
        assert tile.headers["cache-control"] == "max-age=86400"
        np.testing.assert_array_equal(pixels(tile.content), image[window])
        layer = api.get(f"{path}/{item['n']}", params={"layer": "masks"})
        np.testing.assert_array_equal(pixels(layer.content), labels[window])


def test_previews_that_are_not_there(api: httpx.Client) -> None:
    report = registered(upload(api, {"a.png": png(grey(1))}))
    path = f"/datasets/{report['id']}/images"
    assert "image 1" in problem(api.get(f"{path}/1"), 404)["detail"]
    no_mask = problem(api.get(f"{path}/0", params={"layer": "masks"}), 404)
    assert "no mask" in no_mask["detail"]
    assert list(wrong(api.get(f"{path}/0", params={"layer": "labels"}))) == ["query.layer"]
    for n in ("-1", "x", str(2**31), str(10**30)):
        assert list(wrong(api.get(f"{path}/{n}"))) == ["path.n"]


def test_delete_hides_the_dataset_and_removes_its_files(
    api: httpx.Client, settings: Settings
) -> None:
    report = registered(upload(api, {"a.png": png(grey(1))}))
    path = f"/datasets/{report['id']}"
    store = settings.data_folder / path[1:]
    assert store.is_dir()
    assert api.delete(path).status_code == 204
    wait_for(lambda: not store.exists() or None, "the end of its files")
    for response in (
        api.delete(path),
        api.get(path),
        api.get(f"{path}/images"),
        api.get(f"{path}/images/0"),
        api.get(f"{path}/labels"),
        api.post(f"{path}/labels/derive"),
    ):
        assert f"dataset {report['id']}" in problem(response, 404)["detail"]
    assert api.get("/datasets").json()["items"] == []


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING])
def test_a_dataset_that_an_unfinished_job_uses_stays(
    api: httpx.Client, database: Database, state: JobState
) -> None:
    source, target = (registered(upload(api, {"a.png": png(grey(n))}))["id"] for n in range(2))
    job = add_job(database, source, target, state=state)
    for dataset in (source, target):
        refusal = problem(api.delete(f"/datasets/{dataset}"), 409)
        assert refusal["detail"].startswith("1 unfinished")
        assert dataset in refusal["detail"]
        assert api.get(f"/datasets/{dataset}/images/0").status_code == 200
    if state == JobState.QUEUED:
        assert api.post(f"/jobs/{job}/cancel").status_code == 202
        assert api.delete(f"/datasets/{source}").status_code == 204


def test_models_keep_the_lineage_of_a_deleted_dataset(
    api: httpx.Client, database: Database
) -> None:
    source = registered(upload(api, {"a.png": png(grey(1))}))["id"]
    job = add_job(database, source, source, state=JobState.SUCCEEDED)
    model = add_model(database, job, source)
    assert api.delete(f"/datasets/{source}").status_code == 204
    assert api.get(f"/models/{model}").json()["source"] == source
    assert api.get(f"/jobs/{job}").json()["models"] == [str(model)]


def test_ids_that_are_unknown_or_no_ids(api: httpx.Client) -> None:
    for path, name in {
        "/datasets/{}": "dataset_id",
        "/datasets/{}/images": "dataset_id",
        "/jobs/{}": "job_id",
        "/jobs/{}/metrics": "job_id",
        "/models/{}": "model_id",
    }.items():
        unknown = uuid4()
        assert str(unknown) in problem(api.get(path.format(unknown)), 404)["detail"]
        for no_id in ("1", "x" * 36, "0b0f4a0e-4f5c-4a57-8c6e-6a8f2a1f0c0"):
            assert list(wrong(api.get(path.format(no_id)))) == [f"path.{name}"]
