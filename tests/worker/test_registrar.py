"""Registrations as jobs: read by a process of their own, which may be killed at any moment."""

import io
import os
import signal
from collections.abc import Callable
from contextlib import closing
from threading import Thread
from uuid import UUID

import numpy as np
import pytest
from PIL import Image as picture
from sqlalchemy import func, select

from app.datasets import service as datasets
from app.datasets.schemas import DatasetCreate, DatasetReport
from app.jobs import service as jobs
from app.jobs.schemas import JobRead
from app.registrations.plan import SentFile
from app.registrations.service import Asked, Done, Registrations
from app.tables import Dataset, Image, JobEvent, JobState, Lane
from tests.app.files import METADATA, encoded, grey, mask, png, tiff
from tests.processes import join, processes_of, wait_for
from tests.worker.conftest import Service
from tests.worker.runs import background, result_of, run, sqlite_only, supervised
from worker.registrar import describe
from worker.tasks import JobRunner

pytestmark = pytest.mark.processes

Files = dict[str, bytes]
Take = Callable[..., Done | JobRead]

TWO = {"images/a.png": png(grey(1)), "masks/a.png": png(mask()), "images/b.png": png(grey(2))}


@pytest.fixture
def take(service: Service) -> Take:
    """Takes a registration of files as the API does; by default it is a job."""
    registrations = Registrations(
        service.database, service.storage, service.settings, service.queue
    )

    def take(
        files: Files, *, later: bool = True, previous: UUID | None = None, **metadata: object
    ) -> Done | JobRead:
        with service.storage.receiving() as folder:
            sent = []
            for number, (name, data) in enumerate(files.items()):
                (folder / f"{number}").write_bytes(data)
                kind, _, file = name.partition("/")
                fields = {"kind": kind, "name": file, "path": f"{number}", "tag": str(hash(data))}
                sent.append(SentFile.model_validate(fields))
            request = DatasetCreate.model_validate(METADATA | metadata)
            asked = Asked(request, folder, tuple(sent), previous, later=later)
            return registrations.take(asked)

    return take


def submit(take: Take, files: Files, **metadata: object) -> UUID:
    job = take(files, **metadata)
    assert isinstance(job, JobRead)
    return job.id


def long() -> Files:
    """A stack of 800 sections, which takes seconds to read, and longer than a step."""
    pages = np.random.default_rng(0).integers(0, 255, (800, 24, 24), np.uint8)
    return {"images/stack.tif": tiff(pages)}


def dataset_of(service: Service, job: JobRead) -> DatasetReport:
    made = result_of(job).dataset
    assert made is not None
    with service.database.reading() as session:
        return datasets.report(session, made)


def registrar_of(service: Service) -> int:
    def registrars() -> list[int]:
        found = processes_of(service.settings.data_folder).items()
        return [pid for pid, line in found if "worker.registrar" in line]

    (pid,) = wait_for(registrars, "the registrar")
    return pid


def hidden_and_folders(service: Service) -> tuple[int, set[str]]:
    """The number of hidden datasets, and the folders of datasets that no row names."""
    with service.database.reading() as session:
        ids = {str(found) for found in session.scalars(select(Dataset.id))}
        hidden = session.scalar(select(func.count()).where(Dataset.hidden)) or 0
    folders = {path.name for path in (service.settings.data_folder / "datasets").iterdir()}
    return hidden, folders - ids


def test_a_job_registers_what_a_request_would(service: Service, take: Take) -> None:
    job = run(service, submit(take, TWO, tile_px=16))
    assert (job.state, job.attempt, job.error) == (JobState.SUCCEEDED, 1, None)
    found = dataset_of(service, job)
    at_once = take(TWO, later=False, tile_px=16, name="at once")
    assert isinstance(at_once, Done)
    differs = {"id", "name", "created_at"}
    assert found.model_dump(exclude=differs) == at_once.report.model_dump(exclude=differs)
    with service.database.reading() as session:
        counts = dict(
            session.execute(select(Image.dataset_id, func.count()).group_by(Image.dataset_id)).all()
        )
    assert counts[found.id] == counts[at_once.report.id] == found.num_images == 24
    assert service.files(job.id) == {"logs/1.log"}


def test_progress_counts_sections(service: Service, take: Take) -> None:
    job = run(service, submit(take, TWO))
    (stage,) = job.stages
    assert (stage.stage, stage.step, stage.total, stage.finished) == ("register", 2, 2, True)
    with service.database.reading() as session:
        events = session.scalars(
            select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.id)
        ).all()
    told = [(event.kind, event.data.get("state"), event.data.get("done")) for event in events]
    assert told == [
        ("state", "queued", None),
        ("state", "running", None),
        ("stage", None, False),
        ("stage", None, True),
        ("state", "succeeded", None),
    ]


def test_notes_of_the_dataset_are_those_of_the_job(service: Service, take: Take) -> None:
    job = run(service, submit(take, TWO | {"images/Thumbs.db": b"\0"}))
    notes = dataset_of(service, job).notes
    assert notes
    assert result_of(job).notes == [f"{note.where}: {note.message}" for note in notes]


def test_a_job_makes_a_version_of_what_is_stored(service: Service, take: Take) -> None:
    first = take(TWO, later=False, tile_px=16)
    assert isinstance(first, Done)
    job = run(service, submit(take, {}, previous=first.report.id, tile_px=32))
    second = dataset_of(service, job)
    assert (second.version, second.previous, second.tile_px) == (2, first.report.id, 32)
    assert (second.sections, second.class_pixels) == (
        first.report.sections,
        first.report.class_pixels,
    )


@sqlite_only
def test_a_wrong_file_fails_the_job_and_is_named(service: Service, take: Take) -> None:
    job = run(service, submit(take, TWO | {"images/c.png": b"no picture"}))
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert job.error.code == "invalid_files"
    assert "images/c.png: " in job.error.message
    assert hidden_and_folders(service) == (0, set())
    assert service.files(job.id) == {"logs/1.log", *(f"upload/{n}" for n in range(4))}
    with service.database.session() as session:
        jobs.retry(session, service.queue, job.id)
    again = run(service, job.id)
    assert (again.state, again.attempt) == (JobState.FAILED, 2)
    for path in service.storage.upload(job.id).iterdir():
        path.unlink()
    with service.database.session() as session:
        jobs.retry(session, service.queue, job.id)
    gone = run(service, job.id)
    assert gone.error is not None
    assert gone.error.code == "upload_gone"


def repacked(data: bytes) -> bytes:
    """The same picture as another file."""
    return encoded(picture.open(io.BytesIO(data)), compress_level=0)


@sqlite_only
def test_a_dataset_that_exists_is_the_result(service: Service, take: Take) -> None:
    # The same pixels in other files: equal files would be known before a job is made.
    at_once = take({name: repacked(data) for name, data in TWO.items()}, later=False)
    assert isinstance(at_once, Done)
    job = run(service, submit(take, TWO))
    assert result_of(job).dataset == at_once.report.id
    assert len(result_of(job).notes) == 1
    assert hidden_and_folders(service) == (0, set())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_registration_begins_again_from_its_files(
    service: Service, take: Take, number: signal.Signals
) -> None:
    job_id = submit(take, long())
    with supervised(service, job_id) as thread:
        os.kill(registrar_of(service), number)
        join(thread)
    row = service.row(job_id)
    assert (row.state, row.lost_attempts, row.error_code) == ("interrupted", 1, "trainer_died")
    with service.database.session() as session:
        jobs.resume(session, service.queue, job_id)
    job = run(service, job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert dataset_of(service, job).num_sections == 800
    assert hidden_and_folders(service) == (0, set())


@sqlite_only
def test_a_cancelled_registration_leaves_nothing(service: Service, take: Take) -> None:
    job_id = submit(take, long())
    with supervised(service, job_id) as thread:
        service.cancel(job_id)
        join(thread)
    assert service.job(job_id).state == JobState.CANCELLED
    assert service.files(job_id) == {"logs/1.log"}
    assert hidden_and_folders(service) == (0, set())
    assert list((service.settings.data_folder / "incoming").iterdir()) == []


@sqlite_only
def test_a_stopped_worker_hands_the_registration_back(service: Service, take: Take) -> None:
    job_id = submit(take, long())
    with background(service, job_id) as (runner, thread):
        wait_for(lambda: service.row(job_id).step, "the first section")
        runner.stop()
        join(thread)
    assert service.job(job_id).state == JobState.QUEUED
    assert run(service, job_id).state == JobState.SUCCEEDED


@sqlite_only
def test_a_dataset_is_registered_while_the_same_worker_trains(service: Service, take: Take) -> None:
    training = service.endless()
    with closing(JobRunner(service.settings)) as runner:
        trains = Thread(target=runner.run_job, args=[str(training)])
        trains.start()
        try:
            wait_for(lambda: service.row(training).step, "the first step")
            waiting = service.endless()
            job_id = submit(take, TWO)
            runner.run_job(str(job_id))  # returns: no other job finds room
            assert service.job(job_id).state == JobState.SUCCEEDED
            assert service.job(training).state == JobState.RUNNING
            assert service.job(waiting).state == JobState.QUEUED
        finally:
            runner.stop()
            join(trains)


@sqlite_only
def test_a_worker_without_the_lane_leaves_registrations_alone(service: Service, take: Take) -> None:
    job_id = submit(take, TWO)
    settings = service.settings.model_copy(
        update={"lanes": (Lane.CPU, Lane.GPU_TRAIN, Lane.GPU_INFER)}
    )
    with closing(JobRunner(settings)) as runner:
        runner.run_job(str(job_id))
    assert service.job(job_id).state == JobState.QUEUED


def test_every_failure_has_words() -> None:
    assert describe(MemoryError())[0] == "out_of_memory"
    code, words = describe(KeyError("x"))
    assert code == "failed"
    assert "KeyError" in words
