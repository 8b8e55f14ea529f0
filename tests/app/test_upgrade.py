"""What commit 313dbdf left, migrated: every row is there, and the API shows all of it."""

import io
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest
import torch
from alembic import command
from PIL import Image
from sqlalchemy import MetaData, select

from app.database import Database
from app.jobs.result import JobResult
from app.settings import Settings
from app.tables import TrainedModel
from models import checkpoint
from models.data.domain import normalise, resample_image, working_shape
from models.networks.grey import from_network, to_network
from tests.app.conftest import Serve
from tests.app.streams import Stream
from tests.old_state import FOLDER, REVISION, expected

EXPECTED = expected()
RENAMED = {"fence": "attempt", "losses": "lost_attempts"}
NEW = {
    "working_nm",
    "config_version",
    "pixel_size_from",
    "pixels_digest",
    "identity",
    "section_pixels",
    "section_images",
    "images_without",
    "histogram",
    "description",
    "notes",
    "hidden",
    "version",
    "previous_id",
    "target_classes",
    "points",
}
NEW_TABLES = {"label_changes", "publications"}

Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture
def database(old_state: Settings) -> Iterator[Database]:
    with closing(Database(old_state.database)) as database:
        yield database


@pytest.fixture
def before(database: Database) -> Rows:
    """All rows as they were, by table; then the schema is migrated."""
    rows = everything(database)
    database.migrate()
    return rows


@pytest.fixture
def api(before: Rows, old_state: Settings, serve: Serve) -> httpx.Client:
    assert before
    # The job whose worker was killed stays as it was found, however long a test takes.
    return serve(old_state.model_copy(update={"reconcile_seconds": 3600}))


def everything(database: Database) -> Rows:
    metadata = MetaData()
    with database.engine.connect() as connection:
        metadata.reflect(connection)
        return {
            name: sorted(
                (dict(row) for row in connection.execute(select(table)).mappings()), key=str
            )
            for name, table in metadata.tables.items()
            if name not in NEW_TABLES | {"alembic_version"}
        }


def renamed(row: dict[str, Any]) -> dict[str, Any]:
    """A row in today's words: columns, and the plans of parts."""
    row = {RENAMED.get(name, name): value for name, value in row.items()}
    plan = row.get("plan")
    if plan is not None and "split" in plan:
        row["plan"] = {name: value for name, value in plan.items() if name not in ("split", "fold")}
        row["plan"] |= {"fold": plan["split"], "sections": plan["fold"]}
    return row


def as_today(rows: Rows) -> dict[str, dict[str, dict[str, Any]]]:
    """Rows by table and key, without what is new, and without the factor of target-only."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for table, of_table in rows.items():
        found[table] = {}
        for row in map(renamed, of_table):
            row = {name: value for name, value in row.items() if name not in NEW}
            if row.get("dataset_id", "") is None:  # of a key, which is new there
                del row["dataset_id"]
            if str(row.get("id")).replace("-", "") == EXPECTED.models["target-only"].hex:
                row["config"] = row["config"] | {"pixel_size_factor": None}
            columns = ("id", "key", "job_id", "needs_id", "dataset_id", "n", "event_id")
            places = ("stage", "name", "step")
            key = "/".join(str(row[name]) for name in (*columns, *places) if name in row)
            found[table][key] = row
    return found


def ids_of(rows: Rows, table: str) -> set[UUID]:
    return {UUID(str(row["id"])) for row in rows[table]}


def listed(api: httpx.Client, path: str) -> list[dict[str, Any]]:
    answer = api.get(path, params={"limit": 1000})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_every_row_is_there_up_and_down_and_up(before: Rows, database: Database) -> None:
    was = as_today(before)
    assert {name: len(rows) for name, rows in was.items()} == {
        name: count for name, count in EXPECTED.rows.items() if name != "alembic_version"
    }
    assert as_today(everything(database)) == was
    command.downgrade(database.alembic_config(), REVISION)
    assert everything(database) == before
    database.migrate()
    assert as_today(everything(database)) == was


def test_all_jobs_models_and_datasets_are_shown(api: httpx.Client, before: Rows) -> None:
    shown = {name: listed(api, f"/{name}") for name in ("jobs", "models", "datasets")}
    ids = {name: {UUID(item["id"]) for item in items} for name, items in shown.items()}
    assert ids["jobs"] == ids_of(before, "jobs")
    assert ids["models"] == ids_of(before, "trained_models")
    assert ids["datasets"] == ids_of(before, "datasets") - {EXPECTED.datasets["deleted"]}
    for name, items in shown.items():
        for item in items:
            assert api.get(f"/{name}/{item['id']}").json().items() >= item.items()
    states = {UUID(job["id"]): job["state"] for job in shown["jobs"]}
    assert {name: states[job_id] for name, job_id in EXPECTED.jobs.items()} == {
        "adapt": "succeeded",
        "evaluate": "succeeded",
        "benchmark": "succeeded",
        "failed": "failed",
        "cancelled": "cancelled",
        "paused": "paused",
        "interrupted": "interrupted",
        "killed": "running",
    }


def test_jobs_tell_what_they_told(api: httpx.Client, before: Rows) -> None:
    benchmark = str(EXPECTED.jobs["benchmark"])
    for row in before["jobs"]:
        job = api.get(f"/jobs/{UUID(str(row['id']))}").json()
        assert (job["config"], job["config_version"]) == (row["config"], None)
        assert job["result"] == row["result"]
        assert (job["attempt"], job["lost_attempts"]) == (row["fence"], row["losses"])
        assert (job["part"] is not None) == (job["parent"] == benchmark)
    (evaluation,) = JobResult.model_validate(
        api.get(f"/jobs/{EXPECTED.jobs['evaluate']}").json()["result"]
    ).evaluations
    assert evaluation.dataset == EXPECTED.datasets["target"]
    reused = api.get(f"/jobs/{EXPECTED.jobs['adapt']}").json()["models"]
    assert set(reused) == {str(EXPECTED.models[k]) for k in ("style", "segmenter", "stylefilter")}


def test_models_tell_what_they_told(api: httpx.Client, before: Rows) -> None:
    for row in before["trained_models"]:
        model = api.get(f"/models/{UUID(str(row['id']))}").json()
        assert (model["metrics"], model["class_names"]) == (row["metrics"], row["class_names"])
        of_target = UUID(model["id"]) == EXPECTED.models["target-only"]
        factor = {"pixel_size_factor": 1.0} if of_target else {}
        assert (model["config"], model["config_version"]) == (row["config"] | factor, None)
        # Of the target too, whose pixels are five times as large as the source's.
        assert model["working_nm"] == pytest.approx(4.0)


def test_images_and_labels_are_those_that_were_given(api: httpx.Client, before: Rows) -> None:
    target = EXPECTED.datasets["target"]
    rows = {r["n"]: r for r in before["images"] if UUID(str(r["dataset_id"])) == target}
    report = api.get(f"/datasets/{target}").json()
    images = listed(api, f"/datasets/{target}/images")
    labels = listed(api, f"/datasets/{target}/labels")
    assert len(images) == len(labels) == len(rows) == report["num_images"]
    for image in images:
        row = rows[image["n"]]
        assert image["class_pixels"] == dict(
            zip(report["class_names"], row["class_pixels"], strict=True)
        )
    for image in labels:
        known = {name: word for name, word in image["classes"].items() if word != "unknown"}
        assert known == rows[image["image"]]["labels"]


def test_curves_events_and_the_log_are_there(api: httpx.Client, before: Rows) -> None:
    job_id = EXPECTED.jobs["adapt"]
    points = {
        (p["stage"], p["name"], p["step"]): p["value"]
        for p in before["metric_points"]
        if UUID(str(p["job_id"])) == job_id
    }
    assert points == {
        (series["stage"], series["name"], step): value
        for series in api.get(f"/jobs/{job_id}/metrics").json()["series"]
        for step, value in zip(series["steps"], series["values"], strict=True)
    }
    told = [one for one in Stream(api, job_id).end() if one.id is not None]
    events = {e["id"]: e for e in before["job_events"] if UUID(str(e["job_id"])) == job_id}
    assert {one.id: one.kind for one in told} == {n: e["kind"] for n, e in events.items()}
    for one in told:
        assert one.id is not None
        assert one.data.items() >= events[one.id]["data"].items()
    assert len(api.get(f"/jobs/{job_id}/log").text.splitlines()) > 1


def test_the_report_of_the_benchmark_is_there(api: httpx.Client, old_state: Settings) -> None:
    job_id = EXPECTED.jobs["benchmark"]
    (folder,) = old_state.data_folder.glob(f"jobs/{job_id}/*/report")
    for name, stored in (("report.json", "report.json"), ("folds.json", "splits.json")):
        answer = api.get(f"/jobs/{job_id}/report/{name}")
        assert answer.status_code == 200
        assert answer.content == (folder / stored).read_bytes()


def test_an_old_model_predicts_what_its_weights_say(
    api: httpx.Client, database: Database, old_state: Settings
) -> None:
    model_id = EXPECTED.models["stylefilter"]
    image = (FOLDER / "image.png").read_bytes()
    answer = api.post(
        "/predict",
        data={"model": str(model_id)},
        files={"image": ("image.png", image)},
        headers={"Accept": "application/x-npz"},
    )
    assert answer.status_code == 200, answer.text
    found = np.load(io.BytesIO(answer.content))
    pixels = np.asarray(Image.open(io.BytesIO(image)))
    assert np.array_equal(found["mask"], mask_by_hand(database, old_state, model_id, pixels))
    then = np.load(FOLDER / "prediction.npz")
    assert np.abs(found["probabilities"] - then["probabilities"]).max() < 2e-4  # of float16
    first, second = np.sort(then["probabilities"], axis=0)[[-1, -2]]
    clear = first - second > 4e-4  # elsewhere another processor may choose the other class
    assert np.array_equal(found["mask"][clear], then["mask"][clear])
    assert clear.mean() > 0.9


def mask_by_hand(
    database: Database, settings: Settings, model_id: UUID, pixels: np.ndarray
) -> np.ndarray:
    """Stylise and segment a small image in one piece, with the weights as they lie there."""
    with database.reading() as session:
        model = session.get_one(TrainedModel, model_id)
        style = session.get_one(TrainedModel, model.style_model_id)
    cpu = torch.device("cpu")
    segmenter, meta = checkpoint.load_segmenter(settings.data_folder / model.path, cpu)
    generator, of_style = checkpoint.load_generator(settings.data_folder / style.path, cpu)
    seen_as = of_style.target
    assert seen_as is not None
    shape = working_shape(pixels.shape, seen_as.pixel_size_nm, meta.working_nm)
    grey = resample_image(normalise(pixels, seen_as.intensity_window), shape)
    with torch.inference_mode():
        rendered = from_network(generator(torch.from_numpy(to_network(grey))[None, None]).numpy())
        scores = segmenter(torch.from_numpy(to_network(rendered)))[0].softmax(0).numpy()
    return np.argmax([resample_image(each, pixels.shape) for each in scores], axis=0)


def test_old_models_and_stopped_jobs_are_taken_up(api: httpx.Client) -> None:
    models, jobs = EXPECTED.models, EXPECTED.jobs
    target = str(EXPECTED.datasets["target"])
    for name in ("segmenter", "stylefilter", "target-only"):
        body = {"model": str(models[name]), "dataset": target, "split": "val"}
        scored = api.post("/jobs/evaluate", json=body | {"style_model": str(models["style"])})
        assert scored.status_code == 202, scored.text
    pair = {"style_model": str(models["style"]), "segmenter_model": str(models["segmenter"])}
    adapted = api.post("/jobs/stylefilter", json=pair | {"preset": "smoke"})
    assert adapted.status_code == 202, adapted.text
    for name, move in (("failed", "retry"), ("paused", "resume"), ("interrupted", "resume")):
        moved = api.post(f"/jobs/{jobs[name]}/{move}")
        assert (moved.status_code, moved.json()["state"]) == (202, "queued")
    assert json.loads(api.get("/models").text)["items"]
