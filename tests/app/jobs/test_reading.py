"""Answers about jobs that are made from several rows."""

from datetime import UTC, datetime
from uuid import UUID

import httpx

from app.database import Database
from app.tables import ModelKind
from tests.app.records import add_job, add_model


def test_models_of_a_job_come_in_the_order_of_its_stages(
    api: httpx.Client, database: Database, source: str, target: str
) -> None:
    at_once = {"created_at": datetime(2024, 5, 27, tzinfo=UTC)}  # and their ids are random
    to_target = at_once | {"target_id": UUID(target)}
    earlier = add_job(database, source, target)
    style = add_model(database, earlier, source, kind=ModelKind.STYLE, **to_target)
    reused = [{"kind": "style", "model": str(style), "job": str(earlier)}]
    job = add_job(database, source, target, result={"reused": reused})
    segmenter = add_model(database, job, source, id=UUID(int=3), **at_once)
    kinds = {ModelKind.STYLEFILTER: UUID(int=2), ModelKind.BASELINE: UUID(int=1)}
    for kind, model in kinds.items():
        add_model(database, job, source, id=model, kind=kind, **to_target)
    answer = api.get(f"/jobs/{job}").json()
    assert answer["models"] == [str(model) for model in (style, segmenter, *kinds.values())]
