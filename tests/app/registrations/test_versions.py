"""New versions of datasets: other files, or what was said of them corrected; labels stay."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import pytest
from sqlalchemy import select, update

from app.database import Database
from app.tables import Dataset, LabelChange
from tests.app.files import (
    Folder,
    grey,
    mask,
    pixels,
    png,
    problem,
    registered,
    tiff,
    upload,
    write_zarr,
    wrong,
)

Json = dict[str, Any]


@pytest.fixture
def first(api: httpx.Client) -> Json:
    """A stack of six sections with masks, and a single section without, in tiles of 16 px."""
    stack = np.stack([grey(n) for n in range(6)])
    masks = np.stack([mask(organelle=n + 1) for n in range(6)])
    images = {"stack.tif": tiff(stack), "z.png": png(grey(9))}
    return registered(upload(api, images, {"stack.tif": tiff(masks)}, tile_px=16))


def version(api: httpx.Client, dataset: Json, **changes: Any) -> httpx.Response:
    return api.post(f"/datasets/{dataset['id']}/versions", json=changes)


def labels(api: httpx.Client, dataset: Json) -> dict[int, dict[str, str]]:
    """The known labels of each image."""
    items = api.get(f"/datasets/{dataset['id']}/labels", params={"limit": 1000}).json()["items"]
    known = {
        item["image"]: {k: v for k, v in item["classes"].items() if v != "unknown"}
        for item in items
    }
    return {image: classes for image, classes in known.items() if classes}


def label(api: httpx.Client, dataset: Json, *images: int, **classes: str) -> None:
    body = {"labels": [{"image": n, "classes": classes} for n in images]}
    assert api.put(f"/datasets/{dataset['id']}/labels", json=body).status_code == 200


def test_a_corrected_description_makes_the_next_version(api: httpx.Client, first: Json) -> None:
    second = registered(version(api, first, tile_px=32, pixel_size_nm=5.0))
    assert (first["version"], first["previous"]) == (1, None)
    assert (second["version"], second["previous"]) == (2, first["id"])
    assert (second["name"], second["tile_px"], second["pixel_size_nm"]) == ("cells", 32, 5.0)
    same = ("class_names", "sections", "class_pixels", "num_bytes", "pixels_digest", "dtype")
    assert {name: second[name] for name in same} == {name: first[name] for name in same}
    assert second["digest"] != first["digest"]
    for layer in ("images", "masks"):
        path = f"/datasets/{second['id']}/images/0?layer={layer}"
        expected = grey(0) if layer == "images" else mask(organelle=1)
        np.testing.assert_array_equal(pixels(api.get(path).content), expected[:32, :32])


def test_it_is_what_its_files_would_have_given(api: httpx.Client, first: Json) -> None:
    stack = np.stack([grey(n) for n in range(6)])
    masks = np.stack([mask(organelle=n + 1) for n in range(6)])
    images = {"stack.tif": tiff(stack), "z.png": png(grey(9))}
    changes = {
        "tile_px": 20,
        "splits": {"train": ["stack/0000", "stack/0001"], "test": ["stack/0005"]},
        "crop": {"y0": 4, "x0": 8, "height": 30, "width": 40},
        "invert": True,
        "class_names": ["rest", "organelle"],
        "mask_values": {"0": "organelle", "1": "ignore"},
    }
    second = registered(version(api, first, **changes))
    anew = registered(upload(api, images, {"stack.tif": tiff(masks)}, name="another", **changes))
    differ = {"id", "name", "created_at", "version", "previous"}
    assert {k: v for k, v in second.items() if k not in differ} == {
        k: v for k, v in anew.items() if k not in differ
    }


def test_labels_that_still_apply_are_kept(
    api: httpx.Client, first: Json, database: Database
) -> None:
    label(api, first, 0, 5, 30, organelle="present", background="absent")
    label(api, first, 12 * 6, organelle="absent")
    renamed = ["nothing", "organelle"]
    second = registered(version(api, first, class_names=renamed, pixel_size_nm=5.0))
    expected = {n: {"organelle": "present"} for n in (0, 5, 30)} | {72: {"organelle": "absent"}}
    assert labels(api, second) == expected
    with database.reading() as session:
        (change,) = session.scalars(
            select(LabelChange).where(LabelChange.dataset_id == UUID(second["id"]))
        )
        assert (change.kind, change.changed_images, change.complete) == ("version", 4, True)
    label(api, second, 1, organelle="present")
    assert len(labels(api, second)) == 5
    assert len(labels(api, first)) == 4
    other_tiles = registered(version(api, second, tile_px=20))
    assert labels(api, other_tiles) == {}


def test_labels_of_other_pixels_are_not_kept(api: httpx.Client, first: Json) -> None:
    label(api, first, 0, organelle="present")
    crop = {"y0": 8, "x0": 8, "height": 32, "width": 48}
    second = registered(version(api, first, crop=crop))
    assert labels(api, second) == {}
    problem_of_crop = wrong(version(api, second, crop=crop | {"height": 16}))
    assert list(problem_of_crop) == ["body.crop"]


def test_new_files_in_a_form(api: httpx.Client, first: Json) -> None:
    label(api, first, 0, organelle="present")
    label(api, first, 72, organelle="absent")
    files = [("images", ("z.png", png(grey(8)))), ("images", ("y.png", png(grey(7))))]
    path = f"/datasets/{first['id']}/versions"
    second = registered(api.post(path, data={"metadata": "{}"}, files=files))
    assert (second["version"], second["tile_px"]) == (2, 16)
    assert [section["name"] for section in second["sections"]] == ["y", "z"]
    assert labels(api, second) == {12: {"organelle": "absent"}}


def test_new_files_of_a_folder(api: httpx.Client, folder: Folder, first: Json) -> None:
    write_zarr(folder.path / "images.zarr", np.stack([grey(3), grey(4)]))
    second = registered(version(api, first, folder="cells"))
    assert (second["version"], second["num_sections"], second["num_masks"]) == (2, 2, 0)


def test_the_list_shows_the_newest_versions(api: httpx.Client, first: Json) -> None:
    other = registered(upload(api, {"a.png": png(grey(1))}, name="other"))
    second = registered(version(api, first, tile_px=32))
    third = registered(version(api, second, tile_px=64))

    def ids(**query: Any) -> list[str]:
        return [item["id"] for item in api.get("/datasets", params=query).json()["items"]]

    assert ids() == [third["id"], other["id"]]
    assert ids(all_versions=True) == [third["id"], second["id"], other["id"], first["id"]]
    assert api.delete(f"/datasets/{third['id']}").status_code == 204
    assert ids() == [second["id"], other["id"]]
    fourth = registered(version(api, second, tile_px=128))
    assert (fourth["version"], fourth["previous"]) == (3, second["id"])


def test_only_the_newest_version_gets_another(api: httpx.Client, first: Json) -> None:
    second = registered(version(api, first, tile_px=32))
    refused = problem(version(api, first, tile_px=64), 409)
    assert second["id"] in refused["detail"]
    again = version(api, first, tile_px=32)
    assert (again.status_code, again.json()["id"]) == (200, second["id"])
    same = version(api, second)
    assert (same.status_code, same.json()["id"]) == (200, second["id"])


def test_changes_that_need_the_files_are_refused(api: httpx.Client, first: Json) -> None:
    refused = wrong(version(api, first, reading={"start": 1}))
    assert list(refused) == ["body.reading"]
    for word in ("folder", "uploads", "form"):
        assert word in refused["body.reading"]
    assert list(wrong(version(api, first, ignore_value=9))) == ["body.ignore_value"]
    mapped = registered(version(api, first, mask_values={"0": "organelle", "1": "background"}))
    assert mapped["class_pixels"]["background"] == sum(range(1, 7))
    again = version(api, mapped, mask_values={"0": "background", "1": "organelle"})
    assert list(wrong(again)) == ["body.mask_values"]


def test_the_stored_values_of_ignored_pixels_are_known(api: httpx.Client) -> None:
    labelled = mask()
    labelled[0, :3] = 9
    given = {"ignore_value": 9}
    first = registered(upload(api, {"a.png": png(grey(1))}, {"a.png": png(labelled)}, **given))
    assert first["class_pixels"] == {"background": 2230, "organelle": 7}
    values = {"0": "background", "1": "organelle", "9": "background"}
    second = registered(version(api, first, mask_values=values, ignore_value=None))
    assert second["class_pixels"] == {"background": 2233, "organelle": 7}


def test_wrong_changes_are_named(api: httpx.Client, first: Json) -> None:
    assert list(wrong(version(api, first, name="another"))) == ["body.name"]
    assert list(wrong(version(api, first, tile_px=1))) == ["body.tile_px"]
    assert list(wrong(version(api, first, unheard_of=1))) == ["body.unheard_of"]
    assert "splits" in wrong(version(api, first, splits={"train": ["nothing"]}))
    assert list(wrong(version(api, first, folder="x", uploads={"images": [str(uuid4())]}))) == [
        "body.uploads"
    ]
    problem(version(api, {"id": str(uuid4())}, tile_px=32), 404)
    assert api.delete(f"/datasets/{first['id']}").status_code == 204
    problem(version(api, first, tile_px=32), 404)


def test_a_field_is_taken_away_by_null(api: httpx.Client, first: Json) -> None:
    second = registered(version(api, first, tile_px=None))
    assert (second["tile_px"], second["num_images"]) == (None, 7)


def test_a_dataset_of_an_earlier_version_of_the_service(
    api: httpx.Client, first: Json, database: Database
) -> None:
    """Its description was not kept: the row tells what it can."""
    with database.session() as session:
        session.execute(update(Dataset).values(description=None))
        session.commit()
    second = registered(version(api, first, tile_px=32))
    same = ("class_names", "sections", "class_pixels", "intensity_window", "pixel_size_nm")
    assert {name: second[name] for name in same} == {name: first[name] for name in same}


def test_a_job_makes_a_version_and_holds_the_one_before(api: httpx.Client, first: Json) -> None:
    path = f"/datasets/{first['id']}/versions"
    accepted = api.post(path, json={"tile_px": 32}, headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    assert accepted.json()["source"] == first["id"]
    problem(api.delete(f"/datasets/{first['id']}"), 409)
    again = api.post(path, json={"tile_px": 32})
    assert (again.status_code, again.json()["id"]) == (202, accepted.json()["id"])
