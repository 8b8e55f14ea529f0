"""Jobs that run in this process or in a thread of it, and what they leave."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread
from uuid import UUID

import pytest
import torch
from sqlalchemy import select

from app.jobs.result import JobResult
from app.jobs.schemas import JobRead
from app.tables import JobEvent
from tests.processes import wait_for
from tests.worker.conftest import Service
from worker.tasks import Claimed, JobRunner
from worker.trainer import Trainer

SMOKE = "smoke"
STAGES = ["pretrain", "style", "stylise", "adapt", "evaluate", "verdict"]
MODEL_FILES = ("config.json", "metrics.json", "weights.safetensors")
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def result_of(job: JobRead) -> JobResult:
    """What a job that has ended stored as its result."""
    assert job.result is not None
    return JobResult.model_validate(job.result)


def run(service: Service, job_id: UUID) -> JobRead:
    with closing(JobRunner(service.settings)) as runner:
        runner.run_job(str(job_id))
    return service.job(job_id)


class RunnerHere(JobRunner):
    """Trains in this process: a process of its own takes three times as long to start as to train.

    For tests of what is trained; those of how the trainer is supervised need the real runner.
    """

    def supervise(self, claimed: Claimed, *_: object) -> int:
        torch.set_num_threads(self._settings.threads)
        return Trainer(self._settings, claimed.lease).run()


def run_here(service: Service, job_id: UUID) -> JobRead:
    """Run this job, and all others that wait, in this process."""
    with closing(RunnerHere(service.settings)) as runner:
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


def weights(service: Service, job: JobRead) -> dict[str, bytes]:
    """The weight files of a job's models, by kind."""
    rows = [row for row in service.models() if row.id in job.models]
    return {
        row.kind: (service.storage.model(row.path) / "weights.safetensors").read_bytes()
        for row in rows
    }
