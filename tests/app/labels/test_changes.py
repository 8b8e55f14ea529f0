"""Changes of labels: versions, their history, and many labels in short transactions."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import insert, select, update

from app.database import Database, now_plus
from app.errors import Busy, ChangedMeanwhile, Conflict, NotFound, ServiceError
from app.labels.changes import AskedChange, Version, current, write
from app.labels.points import Wanted
from app.tables import ChangeKind, Dataset, Image, LabelChange
from models.data.labels import LabelState
from models.data.sections import Section
from tests.app.files import grey, png, problem, registered, upload, wrong
from tests.processes import DEADLINE_SECONDS

pytestmark = pytest.mark.heavy

MANY = 40_000
PRESENT = {"organelle": LabelState.PRESENT}
ABSENT = {"organelle": LabelState.ABSENT}


@pytest.fixture
def dataset(api: httpx.Client) -> str:
    return str(registered(upload(api, {"a.png": png(grey(1, 32, 32))}, tile_px=16))["id"])


def put(
    api: httpx.Client, dataset: str, labels: Mapping[int, str], if_match: str = "", **query: object
) -> httpx.Response:
    entries = [{"image": n, "classes": {"organelle": word}} for n, word in labels.items()]
    return api.put(
        f"/datasets/{dataset}/labels",
        json={"labels": entries},
        params={name: str(value) for name, value in query.items()},
        headers={"If-Match": if_match} if if_match else {},
    )


def history(api: httpx.Client, dataset: str, **query: object) -> list[dict]:
    answer = api.get(f"/datasets/{dataset}/labels/history", params=query)
    assert answer.status_code == 200
    return answer.json()["items"]


def tag(api: httpx.Client, dataset: str) -> str:
    return api.get(f"/datasets/{dataset}/labels").headers["etag"]


def test_each_change_raises_the_version(api: httpx.Client, dataset: str) -> None:
    assert tag(api, dataset) == '"0"'
    first = put(api, dataset, {0: "present"})
    assert (first.json()["version"], first.headers["etag"]) == (1, '"1"')
    second = put(api, dataset, {0: "absent"})
    assert (second.json()["version"], tag(api, dataset)) == (2, '"2"')
    same = put(api, dataset, {0: "absent"})
    assert (same.json()["version"], same.json()["changed_images"]) == (2, 0)
    assert len(history(api, dataset)) == 2


def test_a_change_of_labels_that_somebody_else_changed_is_refused(
    api: httpx.Client, dataset: str
) -> None:
    seen = tag(api, dataset)
    assert put(api, dataset, {0: "present"}, seen, by="Ann").status_code == 200
    refused = problem(put(api, dataset, {0: "absent"}, seen), 412)
    assert "Ann" in refused["detail"]
    assert "1" in refused["detail"]
    assert api.get(f"/datasets/{dataset}/labels").json()["items"][0]["classes"] == {
        "background": "unknown",
        "organelle": "present",
    }
    for number, names in enumerate(('"1"', 'W/"2"', '"0", "3"', "4", "*"), start=1):
        word = ("absent", "present")[number % 2]
        assert put(api, dataset, {1: word}, names).json()["version"] == number + 1
    for other in ("1", '"06"', "nonsense", '"6.0"'):
        assert problem(put(api, dataset, {1: "unknown"}, other), 412)
    derive = f"/datasets/{dataset}/labels/derive"
    assert problem(api.post(derive, headers={"If-Match": "1"}), 422)  # it has no masks


def test_the_history_tells_who_how_and_how_many(api: httpx.Client, dataset: str) -> None:
    put(api, dataset, {0: "present", 1: "absent"}, by="Ann Ö.", seconds=12.5)
    path = f"/datasets/{dataset}/labels"
    table = b"image,organelle\n1,1\n2,1\n3,1\n"
    api.put(path, content=table, headers={"content-type": "text/csv"}, params={"by": "Bo"})
    found = history(api, dataset)
    facts = ("version", "kind", "by", "seconds", "changed_images", "complete")
    assert [[change[name] for name in facts] for change in found] == [
        [2, "csv", "Bo", None, 3, True],
        [1, "put", "Ann Ö.", 12.5, 2, True],
    ]
    assert found[0]["changed_at"] >= found[1]["changed_at"]
    page = api.get(f"{path}/history", params={"limit": 1}).json()
    assert page["items"] == found[:1]
    assert history(api, dataset, cursor=page["next"]) == found[1:]


def test_facts_of_a_change_that_are_wrong_are_refused(api: httpx.Client, dataset: str) -> None:
    for query, where in (
        ({"by": "a\nb"}, "query.by"),
        ({"by": "a" * 201}, "query.by"),
        ({"seconds": -1}, "query.seconds"),
        ({"seconds": "nan"}, "query.seconds"),
        ({"seconds": 1e9}, "query.seconds"),
        ({"author": "a"}, "query.author"),
    ):
        assert list(wrong(put(api, dataset, {0: "present"}, **query))) == [where]
    assert tag(api, dataset) == '"0"'


def test_a_dataset_that_is_deleted_has_no_history(
    api: httpx.Client, database: Database, dataset: str
) -> None:
    put(api, dataset, {0: "present"}, by="Ann")
    assert api.delete(f"/datasets/{dataset}").status_code == 204
    problem(api.get(f"/datasets/{dataset}/labels/history"), 404)
    with database.reading() as session:
        assert session.scalars(select(LabelChange)).all() == []
    problem(put(api, dataset, {0: "present"}), 404)


def begun(database: Database, dataset: UUID, seconds_ago: float) -> None:
    """Leave the first change of labels as a service that was killed leaves it."""
    with database.session() as session:
        session.add(
            LabelChange(
                dataset_id=dataset,
                version=1,
                kind=ChangeKind.CSV,
                changed_images=7,
                changed_at=now_plus(-seconds_ago),
            )
        )
        session.commit()


def test_a_change_waits_for_one_that_is_being_written(
    api: httpx.Client, database: Database, dataset: str
) -> None:
    begun(database, UUID(dataset), seconds_ago=1)
    busy = put(api, dataset, {0: "present"})
    problem(busy, 503)
    assert int(busy.headers["retry-after"]) > 0
    assert tag(api, dataset) == '"1.7"'


def test_a_change_that_was_left_half_written_is_passed_over(
    api: httpx.Client, database: Database, dataset: str
) -> None:
    begun(database, UUID(dataset), seconds_ago=3600)
    assert put(api, dataset, {0: "present"}, '"1.7"').json()["version"] == 2
    assert [change["complete"] for change in history(api, dataset)] == [True, False]


@pytest.fixture
def many(database: Database) -> UUID:
    """A dataset of many images."""
    dataset_id = uuid4()
    with database.session() as session:
        session.add(
            Dataset(
                id=dataset_id,
                name="many",
                class_names=("background", "organelle"),
                pixel_size_nm=4.0,
                tile_px=16,
                dtype="uint8",
                window_low=0,
                window_high=1,
                digest="",
                num_bytes=1,
                num_sections=1,
                num_masks=0,
                num_images=MANY,
                sections=(Section(0, "a", "train", 16, 16 * MANY, False),),
            )
        )
        session.flush()
        place = {"section": 0, "y0": 0, "x0": 0, "height": 16, "width": 16, "labels": {}}
        rows = [{"dataset_id": dataset_id, "n": n} | place for n in range(MANY)]
        session.execute(insert(Image), rows)
        session.commit()
    return dataset_id


def label_all(database: Database, dataset: UUID, **asked: str) -> tuple[Version, int]:
    wanted = {n: (PRESENT, ABSENT)[n % 2] for n in range(MANY)}
    return write(database, dataset, Wanted(wanted), ChangeKind.PUT, AskedChange(**asked))[:2]


@contextmanager
def while_labelling(
    database: Database, dataset: UUID
) -> Iterator[list[tuple[Version, int] | ServiceError]]:
    """Run the block after the first labels of many have been written; yield how it ended."""
    ends: list[tuple[Version, int] | ServiceError] = []

    def run() -> None:
        try:
            ends.append(label_all(database, dataset))
        except ServiceError as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while state(database, dataset).number == 0:
        assert time.monotonic() < deadline
    try:
        yield ends
    finally:
        thread.join()


def state(database: Database, dataset: UUID) -> Version:
    with database.reading() as session:
        return current(session, dataset)


def test_many_labels_are_written_while_others_write(database: Database, many: UUID) -> None:
    with while_labelling(database, many) as ends:
        between = 0
        while not ends:
            with database.session() as session:
                session.execute(update(Dataset).values(name="other"))
                session.commit()
            between += "." in state(database, many).tag
    assert ends == [(Version(1, "1"), MANY)]
    assert between > 0
    assert label_all(database, many, if_match="1") == (Version(1, "1"), 0)


def test_other_labels_wait_while_many_are_written(database: Database, many: UUID) -> None:
    with while_labelling(database, many) as ends, pytest.raises(Busy):
        write(database, many, Wanted({0: ABSENT}), ChangeKind.PUT, AskedChange())
    assert ends == [(Version(1, "1"), MANY)]
    with pytest.raises(ChangedMeanwhile):
        label_all(database, many, if_match="0")


def test_a_slow_change_ends_when_another_has_taken_over(database: Database, many: UUID) -> None:
    with while_labelling(database, many) as ends, database.session() as session:
        entry = LabelChange(dataset_id=many, version=2, kind=ChangeKind.PUT, complete=True)
        session.add(entry)
        session.commit()
    assert [type(end) for end in ends] == [Conflict]
    with database.reading() as session:
        left = session.get_one(LabelChange, (many, 1))
    assert not left.complete
    assert 0 < left.changed_images < MANY


def test_labels_of_a_dataset_that_is_deleted_meanwhile(database: Database, many: UUID) -> None:
    with while_labelling(database, many) as ends, database.session() as session:
        session.execute(update(Dataset).values(deleted_at=now_plus()))
        session.commit()
    assert [type(end) for end in ends] == [NotFound]
