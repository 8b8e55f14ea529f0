"""Whatever a row holds, every list that shows it answers."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Uuid, column, table, update

from app.columns import Json
from app.database import Database
from app.tables import JobKind, JobState, ModelKind
from tests.app.files import grey, mask, png, problem, registered, upload, wrong
from tests.app.records import SMOKE, add_job, add_model

DAMAGES: list[Any] = [None, "text", 7, [], ["a", 1], {}, {"unheard of": {"a": [1]}}]


class Rows:
    """A dataset, two jobs of it and the model of one; and what the lists show of them."""

    def __init__(self, api: httpx.Client, database: Database) -> None:
        self._api, self._database = api, database
        files = {"a.png": png(grey(1))}, {"a.png": png(mask())}
        self.dataset = str(registered(upload(api, *files))["id"])
        self.job = add_job(database, self.dataset, self.dataset, result={"notes": ["fine"]})
        self.other = add_job(database, self.dataset, self.dataset, state=JobState.PAUSED)
        self.model = add_model(database, self.job, self.dataset)

    def store(self, name: str, key: UUID | str, field: str, value: Any) -> None:
        """Put any JSON into a column, past every check."""
        column_of_key = "dataset_id" if name == "images" else "id"
        rows = table(name, column(column_of_key, Uuid()), column(field, Json))
        statement = update(rows).where(rows.c[column_of_key] == UUID(str(key)))
        with self._database.session() as session:
            session.execute(statement.values({field: value}))
            session.commit()

    def lists(self) -> dict[str, list[Any]]:
        """Return the items of each list, all of which answer."""
        paths = (
            "/datasets",
            f"/datasets/{self.dataset}/images",
            f"/datasets/{self.dataset}/labels",
            "/jobs",
            "/models",
            "/models?kind=segmenter",
        )
        found = {}
        for path in paths:
            answer = self._api.get(path)
            assert answer.status_code == 200, (path, answer.text)
            found[path] = answer.json()["items"]
        return found


@pytest.fixture
def rows(api: httpx.Client, database: Database) -> Rows:
    return Rows(api, database)


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_no_stored_json_takes_a_list_away(rows: Rows, api: httpx.Client, damage: Any) -> None:
    lengths = {path: len(items) for path, items in rows.lists().items()}
    for name, key, field in (
        ("jobs", rows.job, "config"),
        ("jobs", rows.job, "result"),
        ("jobs", rows.job, "plan"),
        ("trained_models", rows.model, "config"),
        ("trained_models", rows.model, "metrics"),
        ("trained_models", rows.model, "class_names"),
        ("images", rows.dataset, "labels"),
        ("images", rows.dataset, "class_pixels"),
    ):
        rows.store(name, key, field, damage)
        shown = rows.lists()
        assert {path: len(items) for path, items in shown.items()} == lengths
        for path, item_id in (("jobs", rows.job), ("models", rows.model)):
            item = api.get(f"/{path}/{item_id}")
            assert item.status_code == 200
            assert item.json() in shown[f"/{path}"]
        assert api.get(f"/datasets/{rows.dataset}").status_code == 200
    (job,) = (job for job in shown["/jobs"] if job["id"] == str(rows.job))
    assert (job["config"], job["result"]) == (damage, damage)
    assert (shown["/models"][0]["config"], shown["/models"][0]["metrics"]) == (damage, damage)
    assert {job["config"]["seed"] for job in shown["/jobs"] if job["id"] == str(rows.other)} == {0}


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_names_of_classes_that_are_none_take_no_list_away(rows: Rows, damage: Any) -> None:
    rows.store("datasets", rows.dataset, "class_names", damage)
    assert len(rows.lists()["/datasets"]) == 1


def test_a_part_is_listed_whose_plan_is_of_another_version(rows: Rows, database: Database) -> None:
    benchmark = add_job(database, rows.dataset, rows.dataset, kind=JobKind.BENCHMARK, plan={})
    plan = {"fold": 0, "sections": {"source": {}, "target": {}}, "method": "of tomorrow"}
    part = add_job(database, rows.dataset, kind=JobKind.METHOD, parent_id=benchmark, plan=plan)
    shown = {job["id"]: job for job in rows.lists()["/jobs"]}
    assert shown[str(part)]["part"] is None
    assert str(benchmark) in shown


def test_what_a_job_reused_is_told_as_far_as_it_is_known(rows: Rows, api: httpx.Client) -> None:
    reused = {"kind": "style", "model": str(rows.model), "job": str(rows.job)}
    rows.store("jobs", rows.other, "result", {"reused": [reused | {"more": 1}], "more": 2})
    assert api.get(f"/jobs/{rows.other}").json()["models"] == [str(rows.model)]
    rows.store("jobs", rows.other, "result", {"reused": [reused | {"kind": "of tomorrow"}]})
    assert api.get(f"/jobs/{rows.other}").json()["models"] == []


def test_a_job_goes_on_only_with_a_config_that_can_be_run(
    rows: Rows, api: httpx.Client, database: Database
) -> None:
    failed = add_job(database, rows.dataset, rows.dataset, state=JobState.FAILED)
    for job, move in ((rows.other, "resume"), (failed, "retry")):
        rows.store("jobs", job, "config", SMOKE.model_dump(mode="json") | {"unheard_of": 1})
        refused = problem(api.post(f"/jobs/{job}/{move}"), 409)
        assert "unheard_of" in refused["detail"]
        assert api.get(f"/jobs/{job}").json()["state"] in ("paused", "failed")
        rows.store("jobs", job, "config", SMOKE.model_dump(mode="json"))
        assert api.post(f"/jobs/{job}/{move}").json()["state"] == "queued"


def test_a_model_whose_config_cannot_be_used_says_so_when_it_is(
    rows: Rows, api: httpx.Client, database: Database
) -> None:
    target = rows.dataset
    style = add_model(
        database, rows.job, target, kind=ModelKind.STYLE, target_id=UUID(rows.dataset)
    )
    bodies = {
        "evaluate": {
            "model": str(rows.model),
            "dataset": rows.dataset,
            "split": "train",
            "stylise": False,
        },
        "stylefilter": {"style_model": str(style), "segmenter_model": str(rows.model)},
    }
    for kind, field in (("evaluate", "model"), ("stylefilter", "segmenter_model")):
        for damage in (SMOKE.model_dump(mode="json") | {"unheard_of": 1}, "text", None):
            rows.store("trained_models", rows.model, "config", damage)
            assert list(wrong(api.post(f"/jobs/{kind}", json=bodies[kind]))) == [f"body.{field}"]
