"""Failures of the trainer: what they are told as, and that they leave nothing."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch
from sqlalchemy import select, update
from torch import Tensor

from app.database import Database
from app.jobs.request_schemas import PretrainRequest
from app.jobs.transitions import claim
from app.settings import Settings
from app.tables import Job, JobState, Publication
from models import segmentation
from models.config.versions import CONFIG_VERSION
from models.data.samples import SourceBatch
from models.segmentation import supervised_loss
from tests.processes import disk_of_its_own
from tests.worker.conftest import Service
from tests.worker.runs import result_of, run, run_here, sqlite_only
from worker.trainer import Trainer

FAILURES: list[tuple[str, str, dict[str, object]]] = [
    # float32 has no such number: the logits are infinite.
    ("non_finite_loss", "stage style, step 1", {"style": {"temperature": 1e-60}}),
    pytest.param(  # type: ignore[list-item]
        "device_unavailable",
        "no CUDA GPU",
        {"device": "cuda"},
        marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU"),
    ),
]


@pytest.mark.processes
@sqlite_only
@pytest.mark.parametrize(("code", "words", "config"), FAILURES)
def test_a_failure_is_told_in_words_and_leaves_nothing(
    service: Service, code: str, words: str, config: dict[str, object]
) -> None:
    job = run(service, service.adapt(**config))
    assert job.state == "failed"
    assert job.error is not None
    assert job.error.code == code
    assert words in job.error.message
    assert "Traceback" in (service.row(job.id).error_traceback or "")
    # What a retry goes on from is kept: of a failure in the second stage, the first.
    saved = {"checkpoints/pretrain-1.pt"} if "stage style" in words else set()
    assert service.files(job.id) == {"logs/1.log"} | saved
    assert service.models() == []


@pytest.mark.processes
@sqlite_only
@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"config": "damaged"}, "config_unusable", "not a JSON object"),
        (
            {"config_version": CONFIG_VERSION + 1},
            "config_unusable",
            "version",
        ),
        ({"plan": {"fold": 0}, "kind": "method"}, "stored_unusable", "sections"),
    ],
)
def test_what_another_version_stored_fails_the_job_in_words(
    service: Service, change: dict[str, Any], code: str, words: str
) -> None:
    job_id = service.adapt()
    with service.database.session() as session:
        if "plan" in change:
            change = {**change, "parent_id": job_id}
        session.execute(update(Job).where(Job.id == job_id).values(change))
        session.commit()
    job = run(service, job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == ("failed", code)
    assert words in job.error.message
    assert job.config == service.row(job_id).config


@pytest.mark.processes
@sqlite_only
def test_a_dataset_whose_files_are_gone_fails_the_job(service: Service) -> None:
    job_id = service.adapt()
    service.storage.remove(service.storage.dataset(service.target))
    job = run(service, job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == ("failed", "dataset_changed")
    assert str(service.target) in job.error.message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The data folder on a file system of its own, of 128 MiB: a small job fits."""
    folder = tmp_path / "data"
    folder.mkdir()
    with disk_of_its_own(folder, megabytes=128):
        yield folder


@pytest.mark.processes
@sqlite_only
@pytest.mark.parametrize("embedded", [False, True])
def test_a_full_disk_fails_the_job_and_leaves_nothing(
    small_disk: Path, service: Service, monkeypatch: pytest.MonkeyPatch, embedded: bool
) -> None:
    """Embedded, the failure itself has to be written to the disk that was full."""
    if embedded:
        path = small_disk / "stylefilter.db"
        with closing(sqlite3.connect(service.database.url.database or "")) as outside:
            outside.execute(f"VACUUM INTO '{path}'")
        monkeypatch.setenv("STYLEFILTER_DATABASE_URL", f"sqlite:///{path}")
        settings = Settings()
        service = replace(service, settings=settings, database=Database(settings.database))
    # Weights of eleven million bytes.
    job_id = service.adapt(style={"base_filters": 32, "steps": 1})
    left = os.statvfs(small_disk)
    with (small_disk / "filler").open("wb") as filler:  # what others wrote meanwhile
        filler.write(bytes(left.f_bavail * left.f_frsize - (3 << 20)))
    job = run(service, job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == ("failed", "disk_full")
    assert "disk is full" in job.error.message
    assert service.files(job_id) == {"logs/1.log"}
    assert service.models() == []
    service.database.close()


@pytest.mark.processes
@sqlite_only
def test_a_disk_too_full_for_the_attempts_folder_fails_the_job(
    small_disk: Path, service: Service
) -> None:
    job_id = service.adapt()
    used = os.statvfs(small_disk)
    options = f"remount,nr_inodes={used.f_files - used.f_ffree}"
    subprocess.run(["mount", "-o", options, str(small_disk)], check=True)
    job = run(service, job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == ("failed", "disk_full")
    assert "disk is full" in job.error.message


sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def limit_images(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A loss on more than ``most`` images at a time is refused as a GPU's allocator would."""

    def limited(segmenter: object, batch: SourceBatch, *arguments: object) -> Tensor:
        if len(batch.images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return supervised_loss(segmenter, batch, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(segmentation, "supervised_loss", limited)


@sqlite_only
def test_a_stage_that_does_not_fit_is_tried_once_in_smaller_parts(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_images(monkeypatch, most=1)
    job_id = service.adapt()
    lease = claim(service.database, "test", 60)
    assert lease is not None
    assert Trainer(service.settings, lease).run() == 0
    job = service.job(job_id)
    assert job.state == JobState.SUCCEEDED
    (changed,) = result_of(job).changed
    assert changed.startswith("pretrain.accumulate 1 -> 2: ")
    assert changed in result_of(job).notes[-1]
    assert service.row(job_id).config["pretrain"]["accumulate"] == 1  # what was asked for
    (segmenter,) = [row for row in service.models() if row.kind == "segmenter"]
    assert segmenter.config["pretrain"]["accumulate"] == 2  # what was done


@sqlite_only
def test_a_stage_that_does_not_fit_twice_fails_the_job(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_images(monkeypatch, most=0)
    job_id = service.adapt()
    lease = claim(service.database, "test", 60)
    assert lease is not None
    assert Trainer(service.settings, lease).run() == 1
    job = service.job(job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "gpu_oom")
    assert "stage pretrain" in job.error.message
    assert service.models() == []


@pytest.mark.training
@sqlite_only
def test_a_job_that_succeeds_asks_for_its_results_and_those_it_reused(service: Service) -> None:
    request = PretrainRequest(source=service.source, preset="smoke")

    def asked() -> set[UUID]:
        with service.database.reading() as session:
            return set(session.scalars(select(Publication.job_id)))

    first = run_here(service, service.submit(request))
    assert asked() == set()
    settings = service.settings.model_copy(update={"results_url": "s3://cells/em"})
    second = run_here(replace(service, settings=settings), service.submit(request))
    assert [model.job for model in result_of(second).reused] == [first.id]
    assert asked() == {first.id, second.id}
