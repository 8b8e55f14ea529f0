"""Jobs under supervision: cancelled, paused, stopped, lost, announced twice."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from threading import Thread
from uuid import uuid4

import pytest
from sqlalchemy import update

from app.jobs import service as jobs
from app.jobs.curves import MetricsQuery
from app.jobs.transitions import claim
from app.settings import Settings
from app.tables import Job, JobState
from tests.processes import join, processes_of, trainer_of, wait_for
from tests.worker.conftest import Service
from tests.worker.runs import (
    background,
    model_files,
    run,
    run_here,
    sqlite_only,
    supervised,
    weights,
)
from worker.tasks import JobRunner, _End

pytestmark = pytest.mark.processes


@sqlite_only
def test_a_cancelled_job_stops_and_leaves_nothing(service: Service) -> None:
    job_id = service.endless()
    with supervised(service, job_id) as thread:
        service.cancel(job_id)
        assert service.job(job_id).state == JobState.CANCELLING
        join(thread)
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
        join(thread)
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
        join(thread)
    assert service.job(job_id).state == "cancelled"
    assert service.files(job_id) == {"logs/1.log"}


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
    assert "NotADirectoryError" in job.error.message
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
        join(thread)
        runner.run_job(str(other))
    assert processes_of(service.settings.data_folder) == {}
    assert service.job(job_id).state == "queued"
    assert service.files(job_id) == {"logs/1.log", "checkpoints/pretrain-1.pt"}
    assert service.row(other).attempt == 0


@sqlite_only
def test_a_job_given_back_goes_on_and_ends_as_if_undisturbed(service: Service) -> None:
    """Stopped in the second stage, which goes on; the first is not trained again."""
    config = {"style": {"steps": 100}}
    job_id = service.adapt(**config)
    with background(service, job_id) as (runner, thread):
        wait_for(lambda: (row := service.row(job_id)).stage == "style" and row.step > 1, "a step")
        runner.stop()
        join(thread)
    stopped = service.row(job_id)
    assert (stopped.state, stopped.stage) == ("queued", "style")
    assert 1 < stopped.step < 100
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
    undisturbed = run_here(service, service.adapt(**config | {"seed": 0}, reuse=False))
    assert weights(service, resumed) == weights(service, undisturbed)
    with service.database.reading() as session:
        asked = MetricsQuery(stage="style", name="loss_d")
        series = jobs.metrics(session, job_id, asked).series
    assert [one.steps for one in series] == [list(range(1, 101))]


@sqlite_only
def test_a_paused_job_goes_on_where_it_was_and_ends_as_if_undisturbed(service: Service) -> None:
    config = {"pretrain": {"steps": 250, "validate_every_steps": 50}}
    job_id = service.adapt(**config)
    with background(service, job_id) as (_, thread):
        wait_for(lambda: service.row(job_id).step > 1, "a step")
        with service.database.session() as session:
            assert jobs.pause(session, job_id).state == "pausing"
        join(thread)
    paused = service.row(job_id)
    assert (paused.state, paused.lost_attempts, paused.error_code) == ("paused", 0, None)
    assert 1 < paused.step < 250
    run(service, job_id)
    assert service.row(job_id).attempt == 1  # nobody takes it up before its user says so
    with service.database.session() as session:
        jobs.resume(session, service.queue, job_id)
    resumed = run(service, job_id)
    assert (resumed.state, resumed.attempt) == ("succeeded", 2)
    assert (
        f"resumed stage=pretrain step={paused.step}" in service.storage.log(job_id, 2).read_text()
    )
    undisturbed = run_here(service, service.adapt(**config, reuse=False))
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
            join(thread)
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
        join(thread)
    assert service.row(job_id).state == "queued"
