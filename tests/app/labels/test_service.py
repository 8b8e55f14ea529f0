"""Image-level labels: written in bulk, merged, read, derived from masks."""

import threading
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import pytest

from app.database import Database
from app.tables import Image
from tests.app.files import grey, mask, png, problem, registered, upload, wrong

CLASSES = ["background", "nucleus", "vesicle"]


@pytest.fixture
def dataset(api: httpx.Client) -> str:
    """One section of 2 x 3 tiles, with a mask: 100 px of class 1, then 3 of class 2 in tile 5."""
    labels = np.zeros((32, 48), np.uint8)
    labels[:10, :10] = 1
    labels[31, 45:] = 2
    report = registered(
        upload(
            api,
            {"a.png": png(grey(1, 32, 48))},
            {"a.png": png(labels)},
            class_names=CLASSES,
            tile_px=16,
        )
    )
    return str(report["id"])


def put(api: httpx.Client, dataset: str, labels: dict[int, dict[str, str]]) -> httpx.Response:
    body = {"labels": [{"image": n, "classes": classes} for n, classes in labels.items()]}
    return api.put(f"/datasets/{dataset}/labels", json=body)


def read(api: httpx.Client, dataset: str) -> list[dict[str, str]]:
    return [item["classes"] for item in api.get(f"/datasets/{dataset}/labels").json()["items"]]


def states(background: str, nucleus: str, vesicle: str) -> dict[str, str]:
    return {"background": background, "nucleus": nucleus, "vesicle": vesicle}


NOTHING = states("unknown", "unknown", "unknown")


def test_all_is_unknown_at_first(api: httpx.Client, dataset: str) -> None:
    page = api.get(f"/datasets/{dataset}/labels", params={"limit": 1}).json()
    assert page["items"] == [{"image": 0, "section": "a", "tile": 0, "classes": NOTHING}]
    rest = api.get(f"/datasets/{dataset}/labels", params={"cursor": page["next"]}).json()
    assert [item["image"] for item in rest["items"]] == [1, 2, 3, 4, 5]
    assert [item["tile"] for item in rest["items"]] == [1, 2, 3, 4, 5]


def test_many_images_are_labelled_at_once_and_merged(api: httpx.Client, dataset: str) -> None:
    written = put(
        api,
        dataset,
        {
            0: {"nucleus": "present", "vesicle": "absent"},
            3: {"nucleus": "absent"},
            5: {"vesicle": "present"},
        },
    )
    assert written.json() == {
        "version": 1,
        "changed_images": 3,
        "counts": {
            "background": {"present": 0, "absent": 0, "unknown": 6},
            "nucleus": {"present": 1, "absent": 1, "unknown": 4},
            "vesicle": {"present": 1, "absent": 1, "unknown": 4},
        },
        "changed_points": 0,
        "points": {},
    }
    put(api, dataset, {0: {"nucleus": "unknown", "background": "present"}})
    assert read(api, dataset) == [
        states("present", "unknown", "absent"),
        NOTHING,
        NOTHING,
        states("unknown", "absent", "unknown"),
        NOTHING,
        states("unknown", "unknown", "present"),
    ]


def test_one_wrong_entry_and_none_is_written(api: httpx.Client, dataset: str) -> None:
    put(api, dataset, {1: {"nucleus": "present"}})
    before = read(api, dataset)
    refused = put(
        api,
        dataset,
        {
            0: {"nucleus": "absent"},
            6: {"nucleus": "present"},
            2: {"golgi": "present", "er": "absent"},
        },
    )
    body = problem(refused, 422)
    assert [item["where"] for item in body["errors"]] == [
        "body.labels.1.image",
        "body.labels.2.classes.er",
        "body.labels.2.classes.golgi",
    ]
    assert "image 6" in body["errors"][0]["message"]
    assert body["detail"].startswith("3 ")
    assert read(api, dataset) == before


def put_entries(api: httpx.Client, dataset: str, *entries: dict[str, Any]) -> httpx.Response:
    return api.put(f"/datasets/{dataset}/labels", json={"labels": list(entries)})


def test_an_image_is_named_by_section_and_tile(api: httpx.Client, dataset: str) -> None:
    nucleus = {"classes": {"nucleus": "present"}}
    named = put_entries(api, dataset, {"section": "a.png", "tile": 4} | nucleus)
    assert named.json()["changed_images"] == 1
    assert read(api, dataset)[4]["nucleus"] == "present"
    refused = wrong(
        put_entries(
            api,
            dataset,
            {"section": "b", "tile": 0} | nucleus,
            {"section": "a", "tile": 6} | nucleus,
            {"section": "a"} | nucleus,
        )
    )
    assert list(refused) == [f"body.labels.{n}.section" for n in range(3)]


def test_an_image_that_comes_twice_is_refused_with_both_places(
    api: httpx.Client, dataset: str
) -> None:
    absent, present = ({"classes": {"nucleus": word}} for word in ("absent", "present"))
    refused = wrong(
        put_entries(
            api,
            dataset,
            {"image": 3} | absent,
            {"image": 2} | absent,
            {"section": "a", "tile": 3} | present,
        )
    )
    assert list(refused) == ["body.labels.2"]
    assert "body.labels.0" in refused["body.labels.2"]
    assert read(api, dataset) == [NOTHING] * 6


def test_a_refusal_counts_all_and_lists_a_hundred(api: httpx.Client, dataset: str) -> None:
    unknown = put_entries(api, dataset, *({"image": n, "classes": {}} for n in range(6, 256)))
    body = problem(unknown, 422)
    assert body["detail"].startswith("250 ")
    assert len(body["errors"]) == 100
    body = problem(put_entries(api, dataset, *({"image": -1} for _ in range(250))), 422)
    assert body["detail"].startswith("500 ")
    assert len(body["errors"]) == 100


def test_labels_of_another_content_type_are_not_guessed(api: httpx.Client, dataset: str) -> None:
    path = f"/datasets/{dataset}/labels"
    for headers in ({}, {"content-type": "text/plain"}):
        refused = problem(api.put(path, content=b"image,nucleus\n0,1\n", headers=headers), 415)
        assert "text/csv" in refused["detail"]


def test_labels_of_another_shape_name_the_field(api: httpx.Client, dataset: str) -> None:
    maybe = {"image": 0, "classes": {"nucleus": "maybe"}}
    cases: list[tuple[Any, str]] = [
        ({"labels": []}, "body"),
        ({"labels": [{"image": -1, "classes": {}}]}, "body.labels.0.image"),
        ({"labels": [maybe]}, "body.labels.0.classes.nucleus"),
        ({"labels": [{"image": 0}]}, "body.labels.0.classes"),
        ({"labels": [{"image": 0, "classes": {}, "n": 1}]}, "body.labels.0.n"),
        ({"labels": [{"classes": {}}]}, "body.labels.0"),
        ({"labels": [{"image": 0, "section": "a", "classes": {}}]}, "body.labels.0"),
        ({"labels": [{"image": 0, "tile": 0, "classes": {}}]}, "body.labels.0"),
        ({}, "body"),
        ([], "body"),
    ]
    for body, where in cases:
        assert list(wrong(api.put(f"/datasets/{dataset}/labels", json=body))) == [where]


def test_body_that_is_no_json(api: httpx.Client, dataset: str) -> None:
    path = f"/datasets/{dataset}/labels"
    headers = {"content-type": "application/json"}
    assert "JSON" in problem(api.put(path, content=b"{", headers=headers), 422)["detail"]
    assert "JSON" in problem(api.put(path, content=b"[" * 10**5, headers=headers), 422)["detail"]
    half = b'{"labels": [{"image": 0, "classes": {"\\ud800": "present"}}]}'
    problem(api.put(path, content=half, headers=headers), 422)


def test_derived_from_masks(api: httpx.Client, dataset: str) -> None:
    path = f"/datasets/{dataset}/labels/derive"
    put(api, dataset, {1: {"nucleus": "present"}})
    summary = api.post(path).json()
    assert summary["changed_images"] == 6
    assert summary["counts"]["nucleus"] == {"present": 1, "absent": 5, "unknown": 0}
    expected = [states("present", "absent", "absent") for _ in range(6)]
    expected[0]["nucleus"] = "present"
    expected[5]["vesicle"] = "present"
    assert read(api, dataset) == expected
    counts = api.post(path, json={"min_pixels": 4}).json()["counts"]
    assert counts["vesicle"] == {"present": 0, "absent": 6, "unknown": 0}
    assert counts["nucleus"]["present"] == 1
    # The first tile has 100 pixels of the nucleus, and 156 of background.
    counts = api.post(path, json={"min_pixels": 101}).json()["counts"]
    assert counts["nucleus"]["present"] == 0
    assert counts["background"]["present"] == 6
    assert api.post(path, json={"min_pixels": 157}).json()["counts"]["background"]["present"] == 5


def test_derived_with_a_least_number_for_each_class(api: httpx.Client, dataset: str) -> None:
    path = f"/datasets/{dataset}/labels/derive"
    summary = api.post(path, json={"min_pixels": {"nucleus": 101, "background": 157}}).json()
    assert summary["derived"] == {
        "background": {"present": 5, "absent": 1},  # the first tile has 156 pixels of it
        "nucleus": {"present": 0, "absent": 6},
        "vesicle": {"present": 1, "absent": 5},
    }
    assert set(summary["notes"]) == {"nucleus"}
    summary = api.post(path, json={"min_pixels": {"nucleus": 100}}).json()
    assert summary["derived"]["nucleus"] == {"present": 1, "absent": 5}
    assert set(summary["notes"]) == {"background"}
    assert summary["counts"]["background"] == {"present": 6, "absent": 0, "unknown": 0}


def test_a_class_that_was_not_annotated_is_not_called_absent(api: httpx.Client) -> None:
    first, second = np.zeros((2, 16, 16), np.uint8)
    first[0, 0], second[1, 1] = 1, 2
    report = registered(
        upload(
            api,
            {f"{n}.png": png(grey(n, 16, 16)) for n in range(3)},
            {"0.png": png(first), "1.png": png(second), "2.png": png(second * 0)},
            class_names=[*CLASSES, "golgi"],
            unannotated={"nucleus": ["1", "2"], "vesicle": ["0", "1"], "golgi": ["0", "1", "2"]},
        )
    )
    put(api, report["id"], {2: {"nucleus": "present"}})
    summary = api.post(f"/datasets/{report['id']}/labels/derive").json()
    assert read(api, report["id"]) == [
        states("present", "present", "unknown") | {"golgi": "unknown"},
        states("present", "unknown", "present") | {"golgi": "unknown"},
        states("present", "present", "absent") | {"golgi": "unknown"},  # what was known stays
    ]
    assert summary["derived"] == {
        "background": {"present": 3, "absent": 0},
        "nucleus": {"present": 1, "absent": 0},
        "vesicle": {"present": 1, "absent": 1},
        "golgi": {"present": 0, "absent": 0},
    }
    assert set(summary["notes"]) == {"background", "golgi"}


@pytest.mark.parametrize("named", [{"golgi": ["0"]}, {"organelle": ["1"]}, {"organelle": []}])
def test_sections_without_an_annotation_have_to_exist(
    api: httpx.Client, named: dict[str, list[str]]
) -> None:
    refused = wrong(upload(api, {"0.png": png(grey(0))}, {"0.png": png(mask())}, unannotated=named))
    assert "unannotated" in str(refused)


def test_derived_for_a_split_leaves_the_others(api: httpx.Client) -> None:
    report = registered(
        upload(
            api,
            {f"{n}.png": png(grey(n)) for n in range(4)},
            # The last has a mask that ignores every pixel: it says nothing.
            {"0.png": png(mask()), "1.png": png(mask()), "3.png": png(mask() * 0 + 255)},
            splits={"train": ["0", "2", "3"], "val": ["1"]},
        )
    )
    path = f"/datasets/{report['id']}/labels"
    assert api.post(f"{path}/derive", json={"split": "train"}).json()["changed_images"] == 1
    known = {"background": "present", "organelle": "present"}
    unknown = {"background": "unknown", "organelle": "unknown"}
    assert read(api, report["id"]) == [known, unknown, unknown, unknown]
    for split in ("test", "unused"):
        refused = wrong(api.post(f"{path}/derive", json={"split": split}))
        assert list(refused) == ["path.dataset_id"]


def test_derive_refuses_what_it_cannot_do(api: httpx.Client) -> None:
    report = registered(upload(api, {"a.png": png(grey(1))}))
    path = f"/datasets/{report['id']}/labels/derive"
    body = problem(api.post(path), 422)
    assert "mask" in body["detail"]
    assert list(wrong(api.post(path, json={"min_pixels": 0}))) == ["body.min_pixels.number"]
    few = {"min_pixels": {"organelle": 0, "golgi": 1}}
    assert list(wrong(api.post(path, json=few))) == ["body.min_pixels.by_class.organelle"]
    golgi = {"min_pixels": {"organelle": 2, "golgi": 1}}
    assert list(wrong(api.post(path, json=golgi))) == ["body.min_pixels.golgi"]
    assert list(wrong(api.post(path, json={"split": "all"}))) == ["body.split"]
    assert list(wrong(api.post(path, json={"minpixels": 1}))) == ["body.minpixels"]


def test_labels_of_a_dataset_that_is_not_there(api: httpx.Client) -> None:
    unknown = uuid4()
    for response in (
        put(api, str(unknown), {0: {"nucleus": "present"}}),
        api.get(f"/datasets/{unknown}/labels"),
        api.post(f"/datasets/{unknown}/labels/derive"),
    ):
        assert f"dataset {unknown}" in problem(response, 404)["detail"]


def test_labels_that_two_write_at_once_are_merged(
    api: httpx.Client, database: Database, dataset: str
) -> None:
    answers: list[httpx.Response] = []
    other = threading.Thread(
        target=lambda: answers.append(put(api, dataset, {0: {"vesicle": "absent"}}))
    )
    with database.session() as session:
        image = session.get_one(Image, (UUID(dataset), 0))
        image.labels = {"nucleus": "present"}
        session.flush()
        other.start()
        other.join(0.3)  # the other has begun, and waits for this transaction
        assert other.is_alive()
        session.commit()
    other.join()
    assert answers[0].status_code == 200
    assert read(api, dataset)[0] == states("unknown", "present", "absent")


def test_only_images_whose_labels_differ_are_counted(api: httpx.Client, dataset: str) -> None:
    labels = {0: {"nucleus": "present"}, 1: {"nucleus": "unknown"}, 2: {"vesicle": "absent"}}
    assert put(api, dataset, labels).json()["changed_images"] == 2
    assert put(api, dataset, labels).json()["changed_images"] == 0
    assert put(api, dataset, {2: {"vesicle": "unknown"}}).json()["changed_images"] == 1
    path = f"/datasets/{dataset}/labels/derive"
    assert api.post(path).json()["changed_images"] == 6
    assert api.post(path).json()["changed_images"] == 0


def test_labels_of_more_images_than_are_written_at_once(api: httpx.Client) -> None:
    report = registered(
        upload(
            api,
            {"a.png": png(grey(1, 800, 800))},
            {"a.png": png(mask(800, 800))},
            tile_px=16,
        )
    )
    labels = {n: {"organelle": "present"} for n in range(0, 2500, 2)}
    summary = put(api, report["id"], labels).json()
    assert summary["changed_images"] == 1250
    assert summary["counts"]["organelle"] == {"present": 1250, "absent": 0, "unknown": 1250}
    summary = api.post(f"/datasets/{report['id']}/labels/derive").json()
    assert summary["changed_images"] == 2500
    assert summary["counts"]["organelle"] == {"present": 1, "absent": 2499, "unknown": 0}


def test_one_label_touches_one_image(database: Database, api: httpx.Client, dataset: str) -> None:
    if database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite locks the whole database")
    with database.session() as session:
        session.get_one(Image, (UUID(dataset), 3), with_for_update=True)
        assert put(api, dataset, {0: {"nucleus": "present"}}).status_code == 200
