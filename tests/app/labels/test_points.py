"""Points over HTTP: written, read back, kept by a version, and refused in words."""

from typing import Any
from uuid import UUID

import httpx
import pytest

from app.database import Database
from app.datasets.domains import load_domain
from app.labels.points import MOST_OF_IMAGE, MOST_POINTS
from app.settings import Settings
from app.storage import Storage
from models.data.domain import Point
from tests.app.files import grey, png, registered, upload, wrong

CLASSES = ["background", "nucleus", "=vesicle"]


@pytest.fixture
def dataset(api: httpx.Client) -> str:
    """Two sections of 32 x 48 pixels, as six tiles of 16 px each."""
    files = {"a.png": png(grey(1, 32, 48)), "b.png": png(grey(2, 32, 48))}
    return str(registered(upload(api, files, class_names=CLASSES, tile_px=16))["id"])


def point(section: str, y: Any, x: Any, name: str = "nucleus", **more: Any) -> dict[str, Any]:
    return {"section": section, "y": y, "x": x, "class": name, **more}


def put(api: httpx.Client, dataset: str, *points: dict[str, Any], **more: Any) -> httpx.Response:
    return api.put(f"/datasets/{dataset}/labels", json={"points": list(points), **more})


def table(api: httpx.Client, dataset: str) -> list[str]:
    answer = api.get(f"/datasets/{dataset}/labels/points")
    assert answer.headers["content-type"].startswith("text/csv")
    return answer.content.decode("utf-8-sig").split()


def test_points_are_written_and_make_their_tiles_present(api: httpx.Client, dataset: str) -> None:
    written = put(
        api,
        dataset,
        point("a.png", 17, 47),
        point("b", 0, 0, "=vesicle"),
        point("b", 1, 0, "background", label="absent"),
    ).json()
    assert (written["version"], written["changed_points"], written["changed_images"]) == (1, 3, 2)
    assert written["points"] == {
        "background": {"present": 0, "absent": 1},
        "nucleus": {"present": 1, "absent": 0},
        "=vesicle": {"present": 1, "absent": 0},
    }
    assert written["counts"]["nucleus"]["present"] == 1
    labels = api.get(f"/datasets/{dataset}/labels").json()["items"]
    known = {
        (each["section"], each["tile"], name)
        for each in labels
        for name, word in each["classes"].items()
        if word == "present"
    }
    assert known == {("a", 5, "nucleus"), ("b", 0, "=vesicle")}
    lines = table(api, dataset)
    assert lines == [
        "section,y,x,class,label",
        "a,17,47,nucleus,1",
        "b,0,0,'=vesicle,1",
        "b,1,0,background,0",
    ]
    # The table can be sent back, and a point that is unknown is taken away.
    again = api.put(
        f"/datasets/{dataset}/labels",
        content="\n".join(lines).replace("a,17,47,nucleus,1", "a,17,47,nucleus,"),
        headers={"Content-Type": "text/csv"},
    ).json()
    assert (again["version"], again["changed_points"], again["changed_images"]) == (2, 1, 0)
    assert table(api, dataset) == [lines[0], *lines[2:]]
    history = api.get(f"/datasets/{dataset}/labels/history").json()["items"]
    assert [(each["kind"], each["changed_points"]) for each in history] == [("csv", 1), ("put", 3)]
    assert put(api, dataset, point("b", 0, 0, "=vesicle")).json()["version"] == 2


def test_training_sees_the_points(
    api: httpx.Client, dataset: str, database: Database, settings: Settings
) -> None:
    put(api, dataset, point("b", 20, 5), point("b", 21, 5, label="absent"))
    with database.reading() as session:
        domain = load_domain(session, Storage(settings.data_folder), UUID(dataset))
    (tile,) = [tile for tile in domain.tiles if tile.points]
    assert (tile.section, tile.y0, tile.x0, tile.labels) == (1, 16, 0, (-1, 1, -1))
    assert tile.points == (Point(20, 5, 1, present=True), Point(21, 5, 1, present=False))


@pytest.mark.parametrize(
    ("points", "where", "words"),
    [
        ([point("a", 32, 0)], ".0", ("y 32", "32 rows", "48 columns")),
        ([point("a", 0, 48)], ".0", ("x 48",)),
        ([point("c", 0, 0)], ".0", ("'c'", "a, b")),
        ([point("a", 0, 0, "cell")], ".0", ("'cell'", "background, nucleus")),
        ([point("a", -1, 0)], ".0.y", ("0",)),
        ([point("a", 0.5, 0)], ".0.y", ("integer",)),
        ([point("a", "top", 0)], ".0.y", ("integer",)),
        ([point("a", 0, 0, label="maybe")], ".0.label", ("present",)),
        ([point("a", 1, 2), point("a.png", 1, 2)], ".1", ("y 1, x 2", "twice")),
        ([{"section": "a", "y": 0, "x": 0}], ".0.class", ()),
    ],
)
def test_wrong_points_are_refused(
    api: httpx.Client, dataset: str, points: list[Any], where: str, words: tuple[str, ...]
) -> None:
    (message,) = [wrong(put(api, dataset, *points))[f"body.points{where}"]]
    assert all(word in message for word in words)
    assert table(api, dataset) == ["section,y,x,class,label"]


def test_too_many_points_are_refused(api: httpx.Client, dataset: str) -> None:
    many = [point("a", 0, 0)] * (MOST_POINTS + 1)
    assert str(MOST_POINTS) in wrong(put(api, dataset, *many))["body.points"]
    places = [(y, x) for y in range(16) for x in range(16)]
    dense = [point("a", y, x, name, label="absent") for y, x in places for name in CLASSES]
    assert put(api, dataset, *dense).json()["changed_points"] == 768 < MOST_OF_IMAGE
    single = str(registered(upload(api, {"c.png": png(grey(3))}, class_names=CLASSES))["id"])
    places = [(y, x) for y in range(40) for x in range(26)]
    crowd = [point("c", y, x, label="absent") for y, x in places]
    assert str(MOST_OF_IMAGE) in wrong(put(api, single, *crowd))["image 0"]


def test_labels_and_points_that_contradict_each_other_are_refused(
    api: httpx.Client, dataset: str
) -> None:
    absent = [{"image": 0, "classes": {"nucleus": "absent"}}]
    two = wrong(put(api, dataset, point("a", 0, 0), point("a", 0, 0, "background")))
    assert "of one class" in two["image 0"]
    together = wrong(put(api, dataset, point("a", 0, 0), labels=absent))
    assert "absent" in together["image 0"]
    put(api, dataset, labels=absent)
    late = wrong(put(api, dataset, point("a", 0, 0), point("a", 0, 20)))
    assert list(late) == ["image 0"]
    assert "y 0, x 0" in late["image 0"]
    assert put(api, dataset, point("a", 0, 20)).status_code == 200  # in another tile
    for word in ("absent", "unknown"):
        label = [{"image": 1, "classes": {"nucleus": word}}, {"image": 2, "classes": {}}]
        assert list(wrong(put(api, dataset, labels=label))) == ["image 1"]
    taken = point("a", 0, 20, label="unknown")
    label = [{"image": 1, "classes": {"nucleus": "absent"}}]
    assert put(api, dataset, taken, labels=label).json()["changed_points"] == 1


def test_a_wrong_table_of_points_names_its_lines(api: httpx.Client, dataset: str) -> None:
    path, kind = f"/datasets/{dataset}/labels", {"Content-Type": "text/csv"}
    sheet = "section;y;x;class\na;0;0;nucleus\na;top;0;nucleus\na;40;0;nucleus\n\nz;1;1;cell\n"
    found = wrong(api.put(path, content=sheet, headers=kind))
    assert list(found) == ["line 3"]
    sheet = sheet.replace("top", "1")
    found = wrong(api.put(path, content=sheet, headers=kind))
    assert list(found) == ["line 4", "line 6"]
    assert "line 2" in wrong(api.put(path, content="section,y,x,class\n", headers=kind))
    label = wrong(api.put(path, content="section,y,x,class,label\na,0,0,nucleus,8\n", headers=kind))
    assert "'8'" in label["line 2"]


def test_a_new_version_keeps_points_and_labels_their_tiles(api: httpx.Client, dataset: str) -> None:
    put(api, dataset, point("a", 20, 40), point("b", 3, 3, label="absent"))
    made = api.post(f"/datasets/{dataset}/versions", json={"tile_px": 32})
    new = registered(made)["id"]
    assert table(api, new) == table(api, dataset)
    labels = api.get(f"/datasets/{new}/labels").json()["items"]
    assert [each["classes"]["nucleus"] for each in labels] == [
        "unknown",
        "present",
        "unknown",
        "unknown",
    ]
