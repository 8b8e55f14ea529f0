"""The process that trains: job row -> models -> result. ``python -m worker.trainer JOB ATTEMPT``.

Training has a process of its own, so that a hard kill, a lost CUDA context or a full memory end
with it. The process records success, failure and cancellation; its supervisor records other ends.
"""

import logging
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event
from uuid import UUID

import torch
from pydantic import ValidationError

from app.database import Database
from app.datasets.domains import DatasetMissing
from app.jobs.result import CELL, ReusedModel
from app.jobs.transitions import Lease, succeed
from app.results import publications
from app.settings import Settings, read_settings
from app.storage import Storage
from app.tables import Job, ModelKind
from models.capacity.limits import DoesNotFit, in_less_memory
from models.checkpoint import CheckpointError
from models.config.stages import Device
from models.config.versions import ConfigUnusable
from models.training.device import DeviceUnavailable
from models.training.loop import NonFiniteLoss, OutOfGpuMemory
from models.training.parallel import from_first, process_group, rank
from models.training.resume import Checkpoints
from worker import stages
from worker.admission import admit
from worker.attempt import run_attempt
from worker.exits import Exit
from worker.inputs import (
    AskingInputs,
    Inputs,
    ReportInputs,
    TrainingInputs,
    classes_of,
    read_inputs,
)
from worker.outcome import Outcome, Surroundings
from worker.process import told_to_stop
from worker.progress import Album, Recorder, Replaced, Silent
from worker.tester import NothingMeasured
from worker.trained_models import find_reusable, register

logger = logging.getLogger(__name__)

_FAILURES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...] = (
    (NonFiniteLoss, "non_finite_loss", "{error}. Lower the learning rate or look at the images."),
    (DeviceUnavailable, "device_unavailable", "{error}"),
    (DatasetMissing, "dataset_changed", "{error}"),
    (DoesNotFit, "does_not_fit", "{error}"),
    (CheckpointError, "model_unreadable", "{error}"),
    (
        ConfigUnusable,
        "config_unusable",
        "This version cannot run the job: {error}. Submit the job again.",
    ),
    (ValidationError, "stored_unusable", "This version cannot read what is stored: {error}"),
    (NothingMeasured, "no_part_succeeded", "{error}"),
    (
        (torch.OutOfMemoryError, OutOfGpuMemory),
        "gpu_oom",
        "The GPU's memory is too small: lower crop_px, batch_size or base_filters. {error}",
    ),
    (MemoryError, "out_of_memory", "Memory is too small: lower crop_px or batch_size."),
)


class Trainer:
    """One attempt of one job, in the only process that trains it or the first of several."""

    def __init__(self, settings: Settings, lease: Lease, stopping: Event | None = None) -> None:
        self._settings = settings
        self._lease = lease
        self._database = Database(settings.database)
        self._storage = Storage(settings.data_folder)
        self._folder = self._storage.attempt(lease.job_id, lease.attempt)
        self._stopping = stopping or Event()

    def device(self) -> Device:
        """Return the device on which the job trains; an unusable job fails on any, once it runs."""
        with self._database.reading() as session:
            try:
                return session.get_one(Job, self._lease.job_id).usable_config().device
            except ConfigUnusable:
                return "cpu"

    def run(self) -> int:
        """Train and record the end; return the exit code."""
        return run_attempt(
            self._work, self._database, self._lease, describe=describe, make_room=self._make_room
        )

    def assist(self) -> int:
        """Train as one of the other processes: the same steps, no record and no result."""
        inputs = self._read()
        if not isinstance(inputs, ReportInputs):
            self._train(inputs)
        return Exit.DONE

    def _work(self) -> None:
        inputs = self._read()
        if isinstance(inputs, ReportInputs):
            outcome = self._report(inputs)
        else:
            admit(inputs, self._settings)
            outcome = self._train(inputs)
        self._storage.remove(self._folder / "work")
        if inputs.job.parent_id is not None:
            self._keep_cell(inputs.job, outcome)
        self._succeed(outcome)

    def _make_room(self) -> None:
        self._storage.remove(self._folder / "work")
        self._storage.remove(self._storage.checkpoints(self._lease.job_id))

    def _read(self) -> Inputs:
        with self._database.reading() as session:
            job = session.get_one(Job, self._lease.job_id)
            return read_inputs(session, self._storage, job)

    def _train(self, inputs: TrainingInputs | AskingInputs) -> Outcome:
        return run_until_it_fits(inputs, self._surroundings(inputs))

    def _report(self, inputs: ReportInputs) -> Outcome:
        """Write the report of what a benchmark's parts measured."""
        # Imported here: no other job needs to load what draws charts.
        from worker.report.collect import write_report
        from worker.report.parts import Parts

        with self._database.reading() as session:
            parts = Parts(session, self._storage, inputs.job)
            return Outcome(result=write_report(parts, self._folder / "report", inputs.target))

    def _keep_cell(self, job: Job, outcome: Outcome) -> None:
        """Write the results of a benchmark's part as a file that any table can take up."""
        from worker.report.cells import cell_of
        from worker.report.parts import Parts

        with self._database.reading() as session:
            benchmark = session.get_one(Job, job.parent_id)
            parts = Parts(session, self._storage, benchmark, {job.id: outcome.result})
            (part,) = (part for part in parts if part.job.id == job.id)
            cell = cell_of(parts, part)
        (self._folder / CELL).write_text(cell.model_dump_json(indent=1) + "\n")

    def _surroundings(self, inputs: TrainingInputs | AskingInputs) -> Surroundings:
        first = rank() == 0
        settings, lease = self._settings, self._lease
        album = Album(self._storage.pictures(lease.job_id), classes_of(inputs))
        recorder = Recorder(self._database, lease, settings.lease_seconds, self._stopping, album)

        def find(kind: ModelKind, fingerprint: str) -> tuple[ReusedModel, Path] | None:
            with self._database.reading() as session:
                return find_reusable(session, self._storage, inputs.job, kind, fingerprint)

        return Surroundings(
            folder=self._folder if first else self._folder / "work" / f"process-{rank()}",
            recorder=recorder if first else Silent(),
            checkpoints=Checkpoints(
                self._storage.checkpoints(lease.job_id),
                attempt=str(lease.attempt),
                every_seconds=settings.checkpoint_seconds,
            ),
            # The first process looks, and all of them take what it found.
            reuse=lambda *what: from_first(find(*what) if first else None),
        )

    def _succeed(self, outcome: Outcome) -> None:
        """Register models and end the job in one transaction: both are seen, or neither."""
        result = outcome.result.model_dump(mode="json")
        with self._database.session() as session:
            job = session.get_one(Job, self._lease.job_id)
            register(session, self._storage, job, outcome)
            if not succeed(session, self._lease, result):
                session.rollback()
                raise Replaced(f"job {self._lease.job_id} was ended by another")
            if self._settings.results_url is not None:
                publications.ask(session, {job.id, *(m.job for m in outcome.result.reused)})
            session.commit()


def run_until_it_fits(inputs: TrainingInputs | AskingInputs, around: Surroundings) -> Outcome:
    """Run a job; if a stage does not fit the GPU, run the job again with it in less memory."""
    changes: list[str] = []
    while True:  # ends: there is a least memory for each stage
        try:
            outcome = stages.run(inputs, around)
            break
        except OutOfGpuMemory as error:
            smaller = in_less_memory(inputs.config, error.stage)
            if smaller is None:
                raise
            logger.warning("gpu_oom stage=%s retry=%s", error.stage, smaller[1])
        torch.cuda.empty_cache()  # outside the block, whose traceback holds the stage's tensors
        inputs = replace(inputs, config=smaller[0])
        changes.append(smaller[1])
    outcome.result.changed += changes
    outcome.result.notes += [
        f"The GPU's memory was too small. This was changed: {c}." for c in changes
    ]
    return outcome


def describe(error: Exception) -> tuple[str, str]:
    """Return a stable code for an error, and words for the user."""
    for kind, code, words in _FAILURES:
        if isinstance(error, kind):
            return code, words.format(error=error)
    return "failed", (
        f"The job met an error that the service does not know ({type(error).__name__}: {error}). "
        "Its log has the details; please report it."
    )


def main() -> int:
    job_id, attempt = UUID(sys.argv[1]), int(sys.argv[2])
    stopping = told_to_stop(job_id)
    settings = read_settings()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    trainer = Trainer(settings, Lease(job_id, attempt), stopping)
    if settings.processes == 1:
        return trainer.run()
    with process_group(trainer.device()):
        return trainer.run() if rank() == 0 else trainer.assist()


if __name__ == "__main__":
    sys.exit(main())
