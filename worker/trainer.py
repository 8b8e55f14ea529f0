"""The process that trains: job row -> models -> result. ``python -m worker.trainer JOB ATTEMPT``.

Its own process, so that a hard kill, a lost CUDA context or a full memory end with it. It records
success, failure and cancellation itself; how it ended otherwise is told by its supervisor.
"""

import faulthandler
import logging
import os
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from threading import Event
from uuid import UUID, uuid4

import torch
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from app.database import Database
from app.jobs.preflight import fold_of, stages_of
from app.jobs.result import ReusedModel
from app.jobs.transitions import Failure, Lease, fail, succeed
from app.settings import Settings, machine_memory_bytes
from app.storage import Storage, is_disk_full
from app.tables import Dataset, Job, JobKind, ModelKind, TrainedModel
from models.capacity import estimate as capacity
from models.capacity.estimate import Extent
from models.capacity.limits import DoesNotFit, Room, check, in_less_memory
from models.checkpoint import CheckpointError
from models.config import Device
from models.config_versions import ConfigUnusable
from models.data.tiles import relabelled
from models.table1.plan import BenchmarkPart
from models.training.device import DeviceUnavailable, check_stages
from models.training.loop import NonFiniteLoss, OutOfGpuMemory
from models.training.parallel import from_first, process_group, rank
from models.training.progress import Stop
from models.training.resume import Checkpoints
from worker.domains import DatasetMissing, load_domain
from worker.parent import when_parent_ends
from worker.progress import Album, Cancelled, Recorder, Replaced, Silent
from worker.stages import Inputs, Outcome, Stages, Surroundings
from worker.tester import NothingMeasured

logger = logging.getLogger(__name__)

EXIT_FAILED, EXIT_DISK_FULL, EXIT_DATABASE, EXIT_ORPHANED, EXIT_STOPPED = 1, 28, 69, 75, 76

_FAILURES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...] = (
    (NonFiniteLoss, "non_finite_loss", "{error}. Lower the learning rate or look at the images."),
    (DeviceUnavailable, "device_unavailable", "{error}"),
    (DatasetMissing, "dataset_changed", "{error}"),
    (DoesNotFit, "does_not_fit", "{error}"),
    (CheckpointError, "model_unreadable", "{error}"),
    (ConfigUnusable, "config_unusable", "This version cannot run the job: {error}."),
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
    """One attempt of one job, or of several processes that train it together the first."""

    def __init__(self, settings: Settings, lease: Lease, stopping: Event | None = None) -> None:
        self._settings = settings
        self._lease = lease
        self._database = Database(settings.database)
        self._storage = Storage(settings.data_folder)
        self._folder = self._storage.attempt(lease.job_id, lease.attempt)
        self._stopping = stopping or Event()

    def device(self) -> Device:
        """Return where the job trains; one that cannot run says so when it is run, anywhere."""
        with self._database.reading() as session:
            try:
                return session.get_one(Job, self._lease.job_id).usable_config().device
            except ConfigUnusable:
                return "cpu"

    def run(self) -> int:
        """Train and record the end; the exit code."""
        try:
            inputs = self._inputs()
            self._check_room(inputs)
            outcome = self._train(inputs)
            self._storage.remove(self._folder / "work")
            self._succeed(outcome)
        except (Cancelled, Stop):
            return EXIT_STOPPED  # the supervisor hands the job back
        except Replaced as error:
            logger.warning("job_replaced job=%s error=%s", self._lease.job_id, error)
        except Exception as error:  # noqa: BLE001 - the one place where a failure becomes a record
            traceback.print_exc()
            return self._fail(error)
        return 0

    def assist(self) -> int:
        """Train as one of the other processes: the same steps, no record and no result."""
        self._train(self._inputs())
        return 0

    def _report(self, inputs: Inputs) -> Outcome:
        """Write what the jobs of a benchmark measured; its own work."""
        # These draw charts, which no other job needs.
        from worker.report.collect import write_report
        from worker.report.parts import Parts

        assert inputs.source is not None
        assert inputs.target is not None
        with self._database.reading() as session:
            parts = Parts(session, self._storage, inputs.job)
            folder = self._folder / "report"
            return Outcome(result=write_report(parts, folder, inputs.source, inputs.target))

    def _train(self, inputs: Inputs) -> Outcome:
        """Run the stages; when one does not fit the GPU, again with it in less memory."""
        if inputs.job.kind == JobKind.BENCHMARK:
            return self._report(inputs) if rank() == 0 else Outcome()
        around = self._surroundings(inputs)
        changes: list[str] = []
        while True:  # ends: there is a least memory for each stage
            try:
                outcome = Stages(inputs, around).run()
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
        outcome.result.notes += [f"The GPU's memory was too small; changed {c}." for c in changes]
        return outcome

    def _surroundings(self, inputs: Inputs) -> Surroundings:
        first = rank() == 0
        settings, lease = self._settings, self._lease
        seen = inputs.source or inputs.target
        album = Album(
            self._storage.pictures(lease.job_id), seen.info.class_names if seen is not None else ()
        )
        recorder = Recorder(self._database, lease, settings.lease_seconds, self._stopping, album)
        return Surroundings(
            folder=self._folder if first else self._folder / "work" / f"process-{rank()}",
            recorder=recorder if first else Silent(),
            checkpoints=Checkpoints(
                self._storage.checkpoints(lease.job_id),
                attempt=str(lease.attempt),
                every_seconds=settings.checkpoint_seconds,
            ),
            # The first process looks, and all do as it found.
            reuse=lambda kind, fingerprint: from_first(
                self._reusable(kind, fingerprint, inputs.job) if first else None
            ),
        )

    def _reusable(
        self, kind: ModelKind, fingerprint: str, job: Job
    ) -> tuple[ReusedModel, Path] | None:
        """The first model that was trained alike and whose files are there: later ones never take
        its place, so that all jobs of a benchmark start from the same.

        A job that is not to take over what others trained still does so of its own benchmark.
        """
        query = (
            select(TrainedModel)
            .where(TrainedModel.kind == kind, TrainedModel.fingerprint == fingerprint)
            .order_by(TrainedModel.created_at, TrainedModel.id)
        )
        if not job.reuse:
            own = select(Job.id).where(Job.parent_id.is_not(None), Job.parent_id == job.parent_id)
            query = query.where(TrainedModel.job_id.in_(own))
        with self._database.reading() as session:
            for model in session.scalars(query):
                folder = self._storage.model(model.path)
                if folder.is_dir():
                    logger.info("stage_reused kind=%s model=%s", kind, model.id)
                    return ReusedModel(kind=kind, model=model.id, job=model.job_id), folder
        return None

    def _inputs(self) -> Inputs:
        with self._database.reading() as session:
            job = session.get_one(Job, self._lease.job_id)
            config = job.usable_config()
            working_nm = None
            if job.source_id is not None:
                source_nm = session.get_one(Dataset, job.source_id).pixel_size_nm
                working_nm = config.working_nm(source_nm)
            # Scoring reads the target alone: the source may be gone by then.
            source_id = None if job.kind == JobKind.EVALUATE else job.source_id
            part = None if job.parent_id is None else BenchmarkPart.model_validate(job.plan)
            fold = fold_of(job)  # a benchmark's picture is of the first fold
            source, target = (
                None
                if i is None
                else load_domain(session, self._storage, i, working_nm=working_nm, splits=splits)
                for i, splits in (
                    (source_id, None if fold is None else fold.source),
                    (job.target_id, None if fold is None else fold.target),
                )
            )
            if target is not None and part is not None and part.tile_px is not None:
                target = relabelled(target, part.tile_px)
            return Inputs(
                job=job,
                part=part,
                config=config,
                source=source,
                target=target,
                style_folder=self._model(session, job.style_model_id),
                segmenter_folder=self._model(session, job.segmenter_model_id),
            )

    def _check_room(self, inputs: Inputs) -> None:
        """Refuse what this machine cannot run, or is too small for; the API may not know it."""
        if inputs.job.kind == JobKind.BENCHMARK:
            return
        if inputs.source is None:
            check_stages(inputs.config, ())
            return
        source = Extent.of(inputs.source)
        target = None if inputs.target is None else Extent.of(inputs.target)
        stages = stages_of(JobKind(inputs.job.kind), target)
        check_stages(inputs.config, stages)
        processes = self._settings.processes
        needed = capacity.estimate(inputs.config, stages, source, target, num_processes=processes)
        if inputs.config.device == "cuda":
            # Only told: the figures for a GPU were never measured, and a stage is tried in parts.
            there = torch.cuda.get_device_properties(0).total_memory
            logger.info("gpu_memory needed=%s there=%s", needed.gpu_memory_bytes, there)
            return
        check(needed, Room(memory_bytes=self._settings.memory_bytes or machine_memory_bytes()))

    def _model(self, session: Session, model_id: UUID | None) -> Path | None:
        if model_id is None:
            return None
        return self._storage.model(session.get_one(TrainedModel, model_id).path)

    def _succeed(self, outcome: Outcome) -> None:
        """Register models and end the job in one transaction: both are seen, or neither."""
        result = outcome.result.model_dump(mode="json")
        with self._database.session() as session:
            job = session.get_one(Job, self._lease.job_id)
            self._register(session, job, outcome)
            if not succeed(session, self._lease, result):
                session.rollback()
                raise Replaced(f"job {self._lease.job_id} was ended by another")
            session.commit()

    def _register(self, session: Session, job: Job, outcome: Outcome) -> None:
        assert job.source_id is not None or not outcome.models
        ids = outcome.reused | {model.kind: uuid4() for model in outcome.models}
        for model in outcome.models:
            source = session.get_one(Dataset, job.source_id)
            adapted = model.kind in (ModelKind.STYLEFILTER, ModelKind.BASELINE)
            style_id = ids.get(ModelKind.STYLE, job.style_model_id)
            segmenter_id = ids.get(ModelKind.SEGMENTER, job.segmenter_model_id)
            row = TrainedModel(
                id=ids[model.kind],
                kind=model.kind,
                job_id=job.id,
                source_id=job.target_id if model.of_target else job.source_id,
                target_id=None if model.kind == ModelKind.SEGMENTER else job.target_id,
                style_model_id=style_id if adapted else None,
                segmenter_model_id=segmenter_id if adapted else None,
                path=self._storage.relative(model.folder),
                class_names=source.class_names,
                config=model.config.model_dump(),
                working_nm=model.config.working_nm(source.pixel_size_nm),
                metrics=dict(model.metrics),
                fingerprint=model.fingerprint,
            )
            session.add(row)
            session.flush()

    def _fail(self, error: Exception) -> int:
        if is_disk_full(error):
            # Make room first, or the failure itself could not be written.
            self._storage.remove(self._folder / "work")
            self._storage.remove(self._storage.checkpoints(self._lease.job_id))
            code, message = "disk_full", "The disk is full; nothing of this attempt was kept."
        elif isinstance(error, OperationalError):
            return EXIT_DATABASE  # it is away or was restarted: nothing another attempt would meet
        else:
            code, message = describe(error)
        trace = "".join(traceback.format_exception(error))
        try:
            with self._database.session() as session:
                fail(session, self._lease, Failure(code, message, trace))
                session.commit()
        except SQLAlchemyError:
            logger.exception("end_not_recorded job=%s", self._lease.job_id)  # the supervisor will
        return EXIT_DISK_FULL if code == "disk_full" else EXIT_FAILED


def describe(error: Exception) -> tuple[str, str]:
    """A stable code and words for the user."""
    for kind, code, words in _FAILURES:
        if isinstance(error, kind):
            return code, words.format(error=error)
    return "failed", f"{type(error).__name__}: {error}"


def main() -> int:
    faulthandler.enable()  # a crash in native code leaves its stack in the job's log
    job_id, attempt = UUID(sys.argv[1]), int(sys.argv[2])
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s %(name)s job={job_id} %(message)s"
    )
    when_parent_ends(lambda: os._exit(EXIT_ORPHANED))
    stopping = Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    settings = Settings()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    trainer = Trainer(settings, Lease(job_id, attempt), stopping)
    if settings.processes == 1:
        return trainer.run()
    with process_group(trainer.device()):
        return trainer.run() if rank() == 0 else trainer.assist()


if __name__ == "__main__":
    sys.exit(main())
