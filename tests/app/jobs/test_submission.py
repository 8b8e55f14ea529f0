"""Jobs submitted over HTTP: stored, announced, told once. No worker runs."""

import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx

from app.database import Database, now_plus
from app.settings import Settings
from app.tables import Dataset, Job
from models.config.presets import preset
from models.config.versions import CONFIG_VERSION
from tests.app.conftest import Serve
from tests.app.files import grey, mask, png, registered, upload, wrong
from tests.app.jobs.requests import accepted, submit


def test_adapt_is_accepted_and_waits(
    api: httpx.Client, settings: Settings, source: str, target: str
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    job = accepted(submit(api, "adapt", source=source, target=target, preset="smoke"))
    created = datetime.fromisoformat(job.pop("created_at"))
    assert before < created < before + timedelta(seconds=30)
    assert api.get(f"/jobs/{job['id']}").json().items() >= job.items()
    assert UUID(job.pop("id")).version == 4
    assert job == {
        "kind": "adapt",
        "state": "queued",
        "lane": "cpu",
        "parent": None,
        "part": None,
        "parts": None,
        "priority": 0,
        "after": [],
        "attempt": 0,
        "lost_attempts": 0,
        "max_attempts": 5,
        "not_before": None,
        "stage": None,
        "step": 0,
        "total": 0,
        "steps_per_second": None,
        "eta_seconds": None,
        "stages": [],
        "error": None,
        "source": source,
        "target": target,
        "models": [],
        "result": None,
        "published": None,
        "config": preset("smoke").model_dump(mode="json"),
        "config_version": CONFIG_VERSION,
        "started_at": None,
        "finished_at": None,
    }
    # The doorbell rang: one message lies in the broker's folder.
    assert len(list((settings.data_folder / "broker" / "messages").iterdir())) == 1


def test_each_stage_alone(
    api: httpx.Client, database: Database, source: str, target: str, style: str, segmenter: str
) -> None:
    masked = registered(upload(api, {"m.png": png(grey(5))}, {"m.png": png(mask())}))["id"]
    submitted = {
        "train-style": accepted(submit(api, "train-style", source=source, target=target)),
        "pretrain": accepted(submit(api, "pretrain", source=source)),
        "stylefilter": accepted(
            submit(api, "stylefilter", style_model=style, segmenter_model=segmenter)
        ),
        "evaluate": accepted(
            submit(api, "evaluate", model=segmenter, dataset=masked, split="train", stylise=False)
        ),
    }
    assert {kind: job["kind"] for kind, job in submitted.items()} == {k: k for k in submitted}
    ends = {kind: (job["source"], job["target"]) for kind, job in submitted.items()}
    assert ends == {
        "train-style": (source, target),
        "pretrain": (source, None),
        "stylefilter": (source, target),
        "evaluate": (source, masked),
    }
    with database.reading() as session:
        stylefilter = session.get_one(Job, UUID(submitted["stylefilter"]["id"]))
        assert (stylefilter.style_model_id, stylefilter.segmenter_model_id) == (
            UUID(style),
            UUID(segmenter),
        )
        evaluate = session.get_one(Job, UUID(submitted["evaluate"]["id"]))
        assert (evaluate.style_model_id, evaluate.segmenter_model_id) == (None, UUID(segmenter))
        assert (evaluate.split, evaluate.stylise) == ("train", False)


def test_the_order_of_a_requests_fields_makes_no_other_request(
    api: httpx.Client, source: str
) -> None:
    key = {"Idempotency-Key": "mine"}
    body = {"source": source, "config": {"seed": 1, "pretrain": {"steps": 3, "crop_px": 64}}}
    first = api.post("/jobs/pretrain", json=body, headers=key)
    turned = {"config": {"pretrain": {"crop_px": 64, "steps": 3}, "seed": 1}, "source": source}
    assert api.post("/jobs/pretrain", json=turned, headers=key).json() == first.json()
    other = body | {"config": {"seed": 2}}
    assert list(wrong(api.post("/jobs/pretrain", json=other, headers=key))) == [
        "header.Idempotency-Key"
    ]


def test_a_broker_that_is_down_loses_no_job(settings: Settings, serve: Serve, source: str) -> None:
    api = serve(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    job = accepted(submit(api, "pretrain", source=source))
    assert api.get(f"/jobs/{job['id']}").json()["state"] == "queued"


def test_a_dataset_being_deleted_takes_no_new_job(
    api: httpx.Client, database: Database, source: str
) -> None:
    answers: list[httpx.Response] = []
    late = threading.Thread(target=lambda: answers.append(submit(api, "pretrain", source=source)))
    with database.session() as session:
        dataset = session.get_one(Dataset, UUID(source), with_for_update=True)
        dataset.deleted_at = now_plus()
        session.flush()
        late.start()
        late.join(0.3)
        session.commit()
    late.join()
    assert list(wrong(answers[0], 404)) == ["body.source"]
