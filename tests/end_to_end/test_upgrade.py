"""`stylefilter up` on what commit 313dbdf left: stopped jobs go on, nothing is trained twice."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import torch
from safetensors.torch import load_file

from app.client.client import Client
from app.jobs.event_schemas import StageEvent
from app.jobs.result import JobResult
from app.jobs.schemas import JobRead
from app.settings import Settings
from app.storage import Storage
from models.checkpoint import WEIGHTS
from tests.old_state import expected
from tests.processes import PACE, running, wait_for

pytestmark = pytest.mark.slow

EXPECTED = expected()
UP = [sys.executable, "-m", "app.cli.main", "up", "--port", "0"]
STOPPED = {
    "paused": ("style", "style"),
    "interrupted": ("pretrain", "segmenter"),
    "killed": ("adapt", "stylefilter"),
}
"""The stage in which each of these jobs was stopped, and the kind of model that it trains."""


class Api(Client):
    """A api that also sends requests of which the ids come back."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._url = url

    def post(self, path: str, **body: Any) -> UUID:
        answer = httpx.post(f"{self._url}{path}", json=body, timeout=60)
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["id"])


@contextmanager
def up(settings: Settings) -> Iterator[Api]:
    """The service on the old folder, and maybe its old PostgreSQL database."""
    variables = PACE | {
        "STYLEFILTER_DATA_FOLDER": str(settings.data_folder),
        "STYLEFILTER_DATABASE_URL": settings.database_url,
    }
    log = settings.data_folder.parent / "up.log"
    with running(UP, variables, log):
        printed = wait_for(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), "URL")
        with Api(printed.group()) as api:
            wait_for(api.ready, "/readyz")
            yield api


def ended(api: Api, job_id: UUID) -> JobRead:
    *_, job = api.watch(job_id, interval_seconds=0.1)
    assert job.state == "succeeded", job.error
    return job


def again(api: Api, name: str, job: JobRead) -> UUID:
    """Submit what a stopped job does, to be done without a stop and by nobody else's models."""
    assert isinstance(job.config, dict)
    pair = {"source": str(job.source), "target": str(job.target)}
    anew = {"preset": "smoke", "reuse": False}
    if name == "paused":
        return api.post("/jobs/train-style", **pair, **anew, config=job.config)
    if name == "interrupted":
        return api.post("/jobs/pretrain", source=pair["source"], **anew, config=job.config)
    models = {f"{kind}_model": str(EXPECTED.models[kind]) for kind in ("style", "segmenter")}
    own = {part: job.config[part] for part in ("adaptation", "seed")}
    return api.post("/jobs/stylefilter", **models, **anew, config=own)


def weights(api: Api, settings: Settings, job: JobRead, kind: str) -> Path:
    made = [model for model in map(api.model, job.models) if model.job == job.id]
    (model,) = [model for model in made if model.kind == kind]
    folder = Storage(settings.data_folder).attempt(job.id, job.attempt)
    (path,) = folder.glob(f"{kind}/{WEIGHTS}")
    assert model.config_version is not None
    return path


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_stopped_jobs_go_on_where_they_stopped_and_end_as_without_a_stop(
    old_state: Settings,
) -> None:
    with up(old_state) as api:
        api.post(f"/jobs/{EXPECTED.jobs['paused']}/resume")
        for name, (stage, kind) in STOPPED.items():
            job = ended(api, EXPECTED.jobs[name])
            begun = [
                event.step
                for event in api.events(job.id)
                if isinstance(event, StageEvent)
                and (event.stage, event.attempt) == (stage, job.attempt)
                and not event.done
            ]
            assert job.attempt == 2
            assert begun
            assert min(begun) > 0, name
            resumed = weights(api, old_state, job, kind)
            fresh = ended(api, again(api, name, job))
            whole = weights(api, old_state, fresh, kind)
            if digest(whole) == EXPECTED.resumed[name][kind]:
                assert digest(resumed) == digest(whole), name
            else:  # this processor rounds otherwise than the one that took the first steps
                close(resumed, whole)


def close(one: Path, other: Path) -> None:
    tensors, others = load_file(one), load_file(other)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.allclose(tensor, others[name], rtol=0, atol=0.02), name


def test_what_was_trained_is_not_trained_again(old_state: Settings) -> None:
    with up(old_state) as api:
        old = api.job(EXPECTED.jobs["adapt"])
        pair = {"source": str(old.source), "target": str(old.target)}
        body = pair | {"preset": "smoke", "config": old.config, "priority": 100}
        job = ended(api, api.post("/jobs/adapt", **body))
        reused = JobResult.model_validate(job.result).reused
        assert {model.kind: model.model for model in reused} == {
            kind: EXPECTED.models[kind] for kind in ("style", "segmenter", "stylefilter")
        }
        assert [stage.stage for stage in job.stages] == ["stylise", "evaluate", "verdict"]
        assert isinstance(old.result, dict)
        assert isinstance(job.result, dict)
        assert job.result["evaluations"] == old.result["evaluations"]


def test_a_failed_job_may_be_tried_again(old_state: Settings) -> None:
    with up(old_state) as api:
        failed = api.post(f"/jobs/{EXPECTED.jobs['failed']}/retry")
        *_, job = api.watch(failed, interval_seconds=0.1)
        assert job.error is not None
        assert (job.state, job.error.code, job.attempt) == ("failed", "dataset_changed", 2)
