"""Trained models over HTTP."""

from uuid import UUID, uuid4

import httpx
import pytest

from app.database import Database
from app.tables import ModelKind
from models.config.versions import CONFIG_VERSION
from tests.app.files import grey, png, problem, registered, upload, wrong
from tests.app.records import SMOKE, add_job, add_model


@pytest.fixture
def source(api: httpx.Client) -> str:
    return str(registered(upload(api, {"a.png": png(grey(1))}))["id"])


def test_a_model_is_shown_with_its_lineage(
    api: httpx.Client, database: Database, source: str
) -> None:
    job = add_job(database, source, source)
    style = add_model(database, job, source, kind=ModelKind.STYLE, target_id=UUID(source))
    segmenter = add_model(database, job, source)
    adapted = add_model(
        database,
        job,
        source,
        kind=ModelKind.STYLEFILTER,
        target_id=UUID(source),
        style_model_id=style,
        segmenter_model_id=segmenter,
        metrics={"dice/mean": 0.75, "selected_by": "validation"},
    )
    body = api.get(f"/models/{adapted}").json()
    assert body.pop("created_at").endswith("Z")
    assert body == {
        "id": str(adapted),
        "kind": "stylefilter",
        "job": str(job),
        "source": source,
        "target": source,
        "style_model": str(style),
        "segmenter_model": str(segmenter),
        "class_names": ["background", "organelle"],
        "config": SMOKE.model_dump(mode="json"),
        "metrics": {"dice/mean": 0.75, "selected_by": "validation"},
        "working_nm": 4.0,
        "config_version": CONFIG_VERSION,
    }
    assert problem(api.get(f"/models/{uuid4()}"), 404)["code"] == "not_found"


def test_models_are_listed_by_kind_and_page_while_new_ones_come(
    api: httpx.Client, database: Database, source: str
) -> None:
    def trained() -> str:
        return str(add_model(database, add_job(database, source), source))

    ids = [trained() for _ in range(3)]
    job = add_job(database, source, source)
    style = str(add_model(database, job, source, kind=ModelKind.STYLE))
    query = {"kind": "segmenter", "limit": 2}
    first = api.get("/models", params=query).json()
    trained()
    second = api.get("/models", params=query | {"cursor": first["next"]}).json()
    assert [model["id"] for model in first["items"] + second["items"]] == ids[::-1]
    assert second["next"] is None
    styles = api.get("/models", params={"kind": "style"}).json()["items"]
    assert [model["id"] for model in styles] == [style]
    assert list(wrong(api.get("/models", params={"kind": "unet"}))) == ["query.kind"]
