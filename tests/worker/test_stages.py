"""Jobs from claim to end: a real trainer process on a small synthetic pair."""

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from uuid import UUID, uuid4

import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import select, update

from app.database import Database
from app.jobs import service as jobs
from app.jobs.curves import MetricsQuery
from app.jobs.schemas import (
    EvaluateRequest,
    JobRead,
    PretrainRequest,
    StyleFilterRequest,
    TrainStyleRequest,
)
from app.jobs.transitions import claim
from app.labels import service as labels
from app.labels.schemas import LabelsUpdate
from app.settings import Settings
from app.tables import Job, JobEvent, JobState
from tests.processes import disk_of_its_own, processes_of, trainer_of, wait_for
from tests.worker.conftest import Service
from worker.tasks import JobRunner, _End

SMOKE = "smoke"
STAGES = ["pretrain", "style", "stylise", "adapt", "evaluate"]
MODEL_FILES = ("config.json", "metrics.json", "weights.safetensors")

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def run(service: Service, job_id: UUID) -> JobRead:
    with closing(JobRunner(service.settings)) as runner:
        runner.run_job(str(job_id))
    return service.job(job_id)


@contextmanager
def supervised(service: Service, job_id: UUID) -> Iterator[Thread]:
    """The job runs in a thread of this process until the block ends; it has made a step."""
    with background(service, job_id) as (_, thread):
        wait_for(lambda: service.row(job_id).step, "the first step")
        yield thread


@contextmanager
def background(service: Service, job_id: UUID) -> Iterator[tuple[JobRunner, Thread]]:
    with closing(JobRunner(service.settings)) as runner:
        thread = Thread(target=runner.run_job, args=[str(job_id)])
        thread.start()
        try:
            yield runner, thread
        finally:
            runner.stop()
            thread.join()


def model_files(attempt: int, *kinds: str) -> set[str]:
    return {f"{attempt}/{kind}/{name}" for kind in kinds for name in MODEL_FILES}


def pictures(service: Service) -> set[str]:
    """Names of all pictures, as events tell them; each is there."""
    query = select(JobEvent).where(JobEvent.kind == "picture")
    with service.database.reading() as session:
        told = {(event.job_id, event.data["name"]) for event in session.scalars(query)}
    assert all((service.storage.pictures(job_id) / name).is_file() for job_id, name in told)
    return {name for _, name in told}


@pytest.mark.slow
def test_each_kind_of_job_succeeds_and_builds_on_the_others(service: Service) -> None:
    source, target = service.source, service.target
    adapted = run(service, service.adapt())
    assert (adapted.state, adapted.error) == ("succeeded", None)
    assert [stage.stage for stage in adapted.stages] == STAGES
    assert all(stage.finished and stage.seconds > 0 for stage in adapted.stages)
    assert service.files(adapted.id) == {"logs/1.log"} | model_files(
        1, "style", "segmenter", "stylefilter"
    )
    assert adapted.result is not None
    assert adapted.result.notes[0] == "Labels: 8 of 8 training tiles labelled."
    for note, weights, domain in zip(
        adapted.result.notes[1:], ("Source-only", "Adapted"), ("source", "target"), strict=True
    ):
        words = f"{weights} weights: best DICE on the {domain}'s validation masks"
        kind = "source_val" if domain == "source" else "target_val"
        assert re.fullmatch(rf"{words}, step [36] \({kind}\)\.", note)
    assert {name.split("-")[0] for name in pictures(service)} == {"style", "pretrain", "adapt"}
    names = ["Source-only", "Histogram matching", "CUT", "StyleFilter"]
    assert [row.method for row in adapted.result.evaluations] == names

    rows = {row.kind: row for row in service.models()}
    final = rows["stylefilter"]
    assert final.style_model_id == rows["style"].id
    assert final.segmenter_model_id == rows["segmenter"].id
    assert {row.source_id for row in rows.values()} == {source}
    assert (rows["style"].target_id, final.target_id) == (target, target)
    assert rows["segmenter"].target_id is None
    folder = service.storage.model(final.path)
    config = json.loads((folder / "config.json").read_text())
    assert config["config"] == final.config == adapted.config.model_dump()
    assert json.loads((folder / "metrics.json").read_text()) == final.metrics
    assert load_file(folder / "weights.safetensors")

    style = run(
        service,
        service.submit(TrainStyleRequest(source=source, target=target, preset=SMOKE, reuse=False)),
    )
    pretrained = run(
        service,
        service.submit(PretrainRequest(source=source, preset=SMOKE, reuse=False)),
    )
    for job, kind in ((style, "style"), (pretrained, "segmenter")):
        assert (job.state, job.error) == ("succeeded", None)
        assert service.files(job.id) == {"logs/1.log"} | model_files(1, kind)
    request = StyleFilterRequest(
        style_model=style.models[0],
        segmenter_model=pretrained.models[0],
        preset=SMOKE,
        reuse=False,
    )
    filtered = run(service, service.submit(request))
    assert (filtered.state, filtered.error) == ("succeeded", None)
    assert service.files(filtered.id) == {"logs/1.log"} | model_files(1, "stylefilter")
    (made,) = [row for row in service.models() if row.job_id == filtered.id]
    assert made.style_model_id == style.models[0]
    assert made.segmenter_model_id == pretrained.models[0]
    # Same seed, same data: the stages one by one give the weights of the whole.
    whole = load_file(service.storage.model(final.path) / "weights.safetensors")
    parts = load_file(service.storage.model(made.path) / "weights.safetensors")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

    scored = run(
        service,
        service.submit(EvaluateRequest(model=final.id, dataset=target)),
    )
    assert (scored.state, scored.error, scored.models) == ("succeeded", None, [])
    assert scored.result is not None
    (evaluation,) = scored.result.evaluations
    assert evaluation.confusion == adapted.result.evaluations[-1].confusion
    assert service.files(scored.id) == {"logs/1.log"}


@sqlite_only
def test_a_cancelled_job_stops_within_seconds_and_leaves_nothing(service: Service) -> None:
    job_id = service.endless()
    with supervised(service, job_id) as thread:
        service.cancel(job_id)
        assert service.job(job_id).state == JobState.CANCELLING
        thread.join(5)
        assert not thread.is_alive()
    job = service.job(job_id)
    assert (job.state, job.error, job.models) == ("cancelled", None, [])
    assert service.files(job_id) == {"logs/1.log"}
    assert service.models() == []


@sqlite_only
@pytest.mark.parametrize(
    ("number", "words", "last_line"),
    [
        (signal.SIGKILL, "killed (SIGKILL): most often the machine ran out of memory", ""),
        (signal.SIGSEGV, "ended by SIGSEGV", "Fatal Python error: Segmentation fault"),
    ],
)
def test_a_trainer_that_dies_interrupts_the_job_with_words_and_its_log(
    service: Service, number: signal.Signals, words: str, last_line: str
) -> None:
    job_id = service.endless()
    with supervised(service, job_id) as thread:
        os.kill(trainer_of(service.settings.data_folder), number)
        thread.join(10)
        assert not thread.is_alive()
    row = service.row(job_id)
    assert (row.state, row.lost_attempts, row.error_code) == ("interrupted", 1, "trainer_died")
    assert words in (row.error_message or "")
    assert last_line in (row.error_traceback or "")
    assert service.files(job_id) <= {"logs/1.log", "checkpoints/pretrain-1.pt"}
    assert service.models() == []


@sqlite_only
def test_a_trainer_that_does_not_stop_is_killed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for a cancellation between steps only, and here it is not yet at its first."""
    monkeypatch.setenv("STYLEFILTER_CANCEL_GRACE_SECONDS", "0.5")
    service = replace(service, settings=Settings())
    slow = {"base_filters": 64, "num_blocks": 9, "crop_px": 256, "batch_size": 4}
    job_id = service.adapt(style=slow)
    log = service.storage.log(job_id, 1)
    with background(service, job_id) as (_, thread):
        wait_for(log.exists, "the trainer")
        service.cancel(job_id)
        thread.join(10)
        assert not thread.is_alive()
    assert service.job(job_id).state == "cancelled"
    assert service.files(job_id) == {"logs/1.log"}


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


@sqlite_only
def test_a_worker_that_cannot_start_the_trainer_leaves_the_job_to_others(
    service: Service,
) -> None:
    job_id = service.adapt()
    folder = service.storage.job(job_id)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("a file in the place of the job's folder")
    job = run(service, job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == ("interrupted", "worker_error")
    assert job.error.message.startswith("The worker could not run the trainer: NotADirectoryError")
    assert "Traceback" in (job.error.traceback or "")


def test_a_cancellation_while_the_end_is_recorded_is_not_lost(service: Service) -> None:
    """The trainer died, and before that is written its user cancels."""
    job_id = service.adapt()
    lease = claim(service.database, "test", 60)
    assert lease is not None
    with closing(JobRunner(service.settings)) as runner, service.database.session() as session:
        session.execute(update(Job).values(state=JobState.CANCELLING))
        end = Thread(target=runner._record, args=[lease, _End.of_trainer(1, "")])
        end.start()
        end.join(0.5)
        session.commit()
        end.join()
    job = service.job(job_id)
    assert (job.state, job.error) == ("cancelled", None)


@sqlite_only
def test_a_dataset_whose_files_are_gone_fails_the_job(service: Service) -> None:
    job_id = service.adapt()
    service.storage.remove(service.storage.dataset(service.target))
    job = run(service, job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == ("failed", "dataset_changed")
    assert str(service.target) in job.error.message


@sqlite_only
def test_a_job_that_is_announced_twice_runs_once(service: Service) -> None:
    """At once, by two workers, and once more when it has ended."""
    job_id = service.adapt(style={"steps": 1}, pretrain={"steps": 1}, adaptation={"steps": 1})
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: run(service, job_id), range(2)))
    ended = service.row(job_id)
    assert (ended.state, ended.attempt) == ("succeeded", 1)
    run(service, job_id)
    assert vars(service.row(job_id)).keys() == vars(ended).keys()
    assert service.row(job_id).finished_at == ended.finished_at
    assert len(service.models()) == 3


@sqlite_only
def test_a_message_of_a_job_that_never_was_does_nothing(service: Service) -> None:
    job_id = uuid4()
    with closing(JobRunner(service.settings)) as runner:
        runner.run_job(str(job_id))
    assert not service.storage.job(job_id).exists()


@sqlite_only
def test_a_stopped_runner_gives_its_job_back_and_takes_no_other(service: Service) -> None:
    job_id, other = service.endless(), service.adapt()
    with background(service, job_id) as (runner, thread):
        wait_for(lambda: service.row(job_id).step, "the first step")
        runner.stop()
        thread.join(10)
        assert not thread.is_alive()
        runner.run_job(str(other))
    assert processes_of(service.settings.data_folder) == {}
    assert service.job(job_id).state == "queued"
    assert service.files(job_id) == {"logs/1.log", "checkpoints/pretrain-1.pt"}
    assert service.row(other).attempt == 0


@sqlite_only
def test_a_job_given_back_goes_on_and_ends_as_if_undisturbed(service: Service) -> None:
    """Stopped in the second stage, which goes on; the first is not trained again."""
    config = {"style": {"steps": 150}}
    job_id = service.adapt(**config)
    with background(service, job_id) as (runner, thread):
        wait_for(lambda: (row := service.row(job_id)).stage == "style" and row.step > 1, "a step")
        runner.stop()
        thread.join(10)
    stopped = service.row(job_id)
    assert (stopped.state, stopped.stage) == ("queued", "style")
    assert 1 < stopped.step < 150
    saved = {"checkpoints/style-1.pt", "checkpoints/pretrain-1.pt"}
    assert service.files(job_id) == {"logs/1.log"} | saved

    resumed = run(service, job_id)
    assert (resumed.state, resumed.error) == ("succeeded", None)
    assert service.files(job_id) == {"logs/1.log", "logs/2.log"} | model_files(
        2, "style", "segmenter", "stylefilter"
    )
    log = service.storage.log(job_id, 2).read_text()
    assert "resumed stage=pretrain step=6" in log
    assert f"resumed stage=style step={stopped.step}" in log
    undisturbed = run(service, service.adapt(**config | {"seed": 0}, reuse=False))
    assert weights(service, resumed) == weights(service, undisturbed)
    with service.database.reading() as session:
        asked = MetricsQuery(stage="style", name="loss_d")
        series = jobs.metrics(session, job_id, asked).series
    assert [one.steps for one in series] == [list(range(1, 151))]


@sqlite_only
def test_a_paused_job_goes_on_where_it_was_and_ends_as_if_undisturbed(service: Service) -> None:
    config = {"pretrain": {"steps": 400, "validate_every_steps": 100}}
    job_id = service.adapt(**config)
    with background(service, job_id) as (_, thread):
        wait_for(lambda: service.row(job_id).step > 1, "a step")
        with service.database.session() as session:
            assert jobs.pause(session, job_id).state == "pausing"
        thread.join(10)
        assert not thread.is_alive()
    paused = service.row(job_id)
    assert (paused.state, paused.lost_attempts, paused.error_code) == ("paused", 0, None)
    assert 1 < paused.step < 400
    run(service, job_id)
    assert service.row(job_id).attempt == 1  # nobody takes it up before its user says so
    with service.database.session() as session:
        jobs.resume(session, service.queue, job_id)
    resumed = run(service, job_id)
    assert (resumed.state, resumed.attempt) == ("succeeded", 2)
    assert (
        f"resumed stage=pretrain step={paused.step}" in service.storage.log(job_id, 2).read_text()
    )
    undisturbed = run(service, service.adapt(**config, reuse=False))
    assert weights(service, resumed) == weights(service, undisturbed)


@sqlite_only
def test_a_job_that_loses_its_trainer_is_taken_up_until_the_limit_and_can_be_retried(
    service: Service,
) -> None:
    job_id = service.endless()
    with service.database.session() as session:
        session.execute(update(Job).values(max_attempts=2))
        session.commit()
    for state in ("interrupted", "failed"):
        with background(service, job_id) as (runner, thread):
            attempt = service.row(job_id).attempt
            wait_for(lambda: service.row(job_id).state == "running", "the attempt")
            wait_for(lambda: service.row(job_id).step > 1, "a step")
            os.kill(trainer_of(service.settings.data_folder), signal.SIGKILL)
            wait_for(lambda: service.row(job_id).state != "running", state)
            assert service.row(job_id).state == state
            runner.stop()
            thread.join(10)
        with service.database.session() as session:
            session.execute(update(Job).values(not_before=None))
            session.commit()
    row = service.row(job_id)
    assert (row.lost_attempts, row.attempt, row.error_code) == (2, attempt + 1, "trainer_died")
    assert {path.split("/")[0] for path in service.files(job_id)} >= {"logs"}
    with service.database.session() as session:
        assert jobs.retry(session, service.queue, job_id).lost_attempts == 0
    with background(service, job_id) as (runner, thread):
        wait_for(lambda: service.row(job_id).state == "running", "the retry")
        runner.stop()
        thread.join(20)
    assert service.row(job_id).state == "queued"


def weights(service: Service, job: JobRead) -> dict[str, bytes]:
    """The weight files of a job's models, by kind."""
    rows = [row for row in service.models() if row.id in job.models]
    return {
        row.kind: (service.storage.model(row.path) / "weights.safetensors").read_bytes()
        for row in rows
    }


@sqlite_only
def test_what_was_trained_alike_is_not_trained_again(service: Service) -> None:
    first = run(service, service.adapt())
    assert first.result is not None
    assert first.result.reused == []
    made = dict(zip(("style", "segmenter", "stylefilter"), first.models, strict=True))

    def reused(**config: object) -> tuple[set[str], list[str]]:
        """Which kinds an adaptation took over, and the stages it went through."""
        job = run(service, service.adapt(**config))
        assert (job.state, job.error) == ("succeeded", None)
        assert len(job.models) == 3
        assert job.result is not None
        kinds = {model.kind: model for model in job.result.reused}
        assert all(m.model == made[kind] and m.job == first.id for kind, m in kinds.items())
        rows = {row.kind: row for row in service.models() if row.job_id == job.id}
        if "stylefilter" in rows:
            assert rows["stylefilter"].style_model_id in job.models
            assert rows["stylefilter"].segmenter_model_id in job.models
        return set(kinds), [stage.stage for stage in job.stages]

    everything = {"style", "segmenter", "stylefilter"}
    assert reused() == (everything, ["stylise", "evaluate"])
    kinds, stages = reused(adaptation={"steps": 5})
    assert kinds == {"style", "segmenter"}
    assert stages == ["stylise", "adapt", "evaluate"]
    assert reused(style={"steps": 5})[0] == {"segmenter"}
    assert reused(pretrain={"steps": 2})[0] == {"style"}
    assert reused(seed=7)[0] == set()
    with service.database.session() as session:
        changed = {
            "labels": [{"image": 0, "classes": {"cytosol": "unknown", "vesicle": "unknown"}}]
        }
        labels.update(session, service.target, LabelsUpdate.model_validate(changed))
    assert reused()[0] == {"style", "segmenter"}
    service.storage.remove(service.storage.job(first.id))  # its files are gone
    assert reused(adaptation={"steps": 7})[0] == set()
    assert reused(reuse=False)[0] == set()


@pytest.mark.slow
@sqlite_only
def test_several_processes_train_one_job(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEFILTER_PROCESSES", "2")
    monkeypatch.setenv("STYLEFILTER_THREADS", "1")
    service = replace(service, settings=Settings())
    job = run(service, service.adapt())
    assert (job.state, job.error) == ("succeeded", None)
    assert service.files(job.id) == {"logs/1.log"} | model_files(
        1, "style", "segmenter", "stylefilter"
    )
    assert [stage.stage for stage in job.stages] == STAGES
    again = run(service, service.adapt())
    assert again.result is not None
    assert len(again.result.reused) == 3
    stopped = service.adapt(style={"steps": 1_000_000}, seed=3)
    with background(service, stopped) as (runner, thread):
        wait_for(lambda: service.row(stopped).step, "the first step")
        runner.stop()
        thread.join(20)
        assert not thread.is_alive()
    assert service.job(stopped).state == "queued"
    wait_for(lambda: processes_of(service.settings.data_folder) == {}, "the end of all processes")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The data folder on a file system of its own, of 128 MiB: a small job fits."""
    folder = tmp_path / "data"
    folder.mkdir()
    with disk_of_its_own(folder, megabytes=128):
        yield folder


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
