"""The process that trains: job row -> models -> result. ``python -m worker.trainer JOB FENCE``.

Its own process, so that a hard kill, a lost CUDA context or a full memory end with it. It records
success, failure and cancellation itself; how it ended otherwise is told by its supervisor.
"""

import faulthandler
import logging
import os
import shutil
import sys
import traceback
from pathlib import Path
from uuid import UUID, uuid4

import torch
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.database import Database
from app.settings import Settings
from app.storage import Storage, is_disk_full
from app.tables import Dataset, Job, JobKind, JobState, ModelKind, TrainedModel
from models.checkpoint import CheckpointError
from models.config import StyleFilterConfig
from models.device import DeviceUnavailable
from models.training import NonFiniteLoss
from worker.domains import DatasetMissing, load_domain
from worker.lease import Lease, finish
from worker.parent import when_parent_ends
from worker.progress import Cancelled, Recorder, Replaced
from worker.stages import Inputs, Outcome, Stages

logger = logging.getLogger(__name__)

EXIT_FAILED, EXIT_DISK_FULL, EXIT_ORPHANED = 1, 28, 75

_FAILURES: tuple[tuple[type[Exception], str, str], ...] = (
    (NonFiniteLoss, "non_finite_loss", "{error}. Lower the learning rate or look at the images."),
    (DeviceUnavailable, "device_unavailable", "{error}"),
    (DatasetMissing, "dataset_changed", "{error}"),
    (CheckpointError, "model_unreadable", "{error}"),
    (
        torch.OutOfMemoryError,
        "gpu_oom",
        "The GPU's memory is too small: lower crop_px, batch_size or base_filters. {error}",
    ),
    (MemoryError, "out_of_memory", "Memory is too small: lower crop_px or batch_size."),
)


class Trainer:
    """One attempt of one job."""

    def __init__(self, settings: Settings, lease: Lease) -> None:
        self._settings = settings
        self._lease = lease
        self._database = Database(settings.database)
        self._storage = Storage(settings.data_folder)
        self._folder = self._storage.attempt(lease.job_id, lease.fence)

    def run(self) -> int:
        """Train and record the end; the exit code."""
        try:
            recorder = Recorder(self._database, self._lease, self._settings.lease_seconds)
            outcome = Stages(self._inputs(), self._folder, recorder).run()
            shutil.rmtree(self._folder / "work", ignore_errors=True)
            self._succeed(outcome)
        except Cancelled:
            self._end(JobState.CANCELLED)
        except Replaced as error:
            logger.warning("job_replaced job=%s error=%s", self._lease.job_id, error)
        except Exception as error:  # noqa: BLE001 - the one place where a failure becomes a record
            traceback.print_exc()
            return self._fail(error)
        return 0

    def _inputs(self) -> Inputs:
        with self._database.reading() as session:
            job = session.get_one(Job, self._lease.job_id)
            config = StyleFilterConfig.model_validate(job.config)
            working_nm = None
            if job.source_id is not None:
                size = session.get_one(Dataset, job.source_id).pixel_size_nm
                working_nm = size * config.pixel_size_factor
            # Scoring reads the target alone: the source may be gone by then.
            source_id = None if job.kind == JobKind.EVALUATE else job.source_id
            source, target = (
                None if i is None else load_domain(session, self._storage, i, working_nm)
                for i in (source_id, job.target_id)
            )
            return Inputs(
                job=job,
                config=config,
                source=source,
                target=target,
                style_folder=self._model(session, job.style_model_id),
                segmenter_folder=self._model(session, job.segmenter_model_id),
            )

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
            if not finish(session, self._lease, JobState.SUCCEEDED, result=result):
                session.rollback()
                raise Replaced(f"job {self._lease.job_id} was ended by another")
            session.commit()

    def _register(self, session: Session, job: Job, outcome: Outcome) -> None:
        assert job.source_id is not None or not outcome.models
        ids = {model.kind: uuid4() for model in outcome.models}
        for model in outcome.models:
            adapted = model.kind == ModelKind.STYLEFILTER
            style_id = ids.get(ModelKind.STYLE, job.style_model_id)
            segmenter_id = ids.get(ModelKind.SEGMENTER, job.segmenter_model_id)
            row = TrainedModel(
                id=ids[model.kind],
                kind=model.kind,
                job_id=job.id,
                source_id=job.source_id,
                target_id=None if model.kind == ModelKind.SEGMENTER else job.target_id,
                style_model_id=style_id if adapted else None,
                segmenter_model_id=segmenter_id if adapted else None,
                path=self._storage.relative(model.folder),
                class_names=session.get_one(Dataset, job.source_id).class_names,
                config=job.config,
                metrics=dict(model.metrics),
            )
            session.add(row)
            session.flush()

    def _fail(self, error: Exception) -> int:
        if is_disk_full(error):
            # Make room first, or the failure itself could not be written.
            shutil.rmtree(self._folder / "work", ignore_errors=True)
            code, message = "disk_full", "The disk is full; nothing of this attempt was kept."
        else:
            code, message = describe(error)
        trace = "".join(traceback.format_exception(error))
        try:
            self._end(
                JobState.FAILED, error_code=code, error_message=message, error_traceback=trace
            )
        except SQLAlchemyError:
            logger.exception("end_not_recorded job=%s", self._lease.job_id)  # the supervisor will
        return EXIT_DISK_FULL if code == "disk_full" else EXIT_FAILED

    def _end(self, state: JobState, **values: str) -> None:
        with self._database.session() as session:
            finish(session, self._lease, state, **values)
            session.commit()


def describe(error: Exception) -> tuple[str, str]:
    """A stable code and words for the user."""
    for kind, code, words in _FAILURES:
        if isinstance(error, kind):
            return code, words.format(error=error)
    return "failed", f"{type(error).__name__}: {error}"


def main() -> int:
    faulthandler.enable()  # a crash in native code leaves its stack in the job's log
    job_id, fence = UUID(sys.argv[1]), int(sys.argv[2])
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s %(name)s job={job_id} %(message)s"
    )
    when_parent_ends(lambda: os._exit(EXIT_ORPHANED))
    settings = Settings()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    return Trainer(settings, Lease(job_id, fence)).run()


if __name__ == "__main__":
    sys.exit(main())
