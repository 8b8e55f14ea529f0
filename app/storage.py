"""Knows the layout of the data folder, and writes and removes its folders.

A folder is written under another name and renamed at the end, so it is whole or not there.
"""

import errno
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

from models.data.files import written_aside

STALE_SECONDS = 24 * 3600
"""The age at which a folder that no process has touched is given up."""

logger = logging.getLogger(__name__)


class Storage:
    """The data folder. It holds these folders:

    ``datasets/<id>``: the arrays of a dataset.
    ``jobs/<id>/<attempt>``: the working files and the weights of one attempt of a job.
    ``jobs/<id>/logs``: the log of the trainer of each attempt.
    ``jobs/<id>/pictures``: the pictures that were taken during training.
    ``jobs/<id>/checkpoints``: the saved state of the stages of a job. It is kept until the job
    succeeds or is cancelled, and for some days after the job has failed.
    ``jobs/<id>/upload``: the files that a registration reads. They are kept as checkpoints are.
    ``uploads/<id>``: a file that comes in pieces.
    ``incoming``: files and folders that are being written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming, self.uploads = folder / "incoming", folder / "uploads"
        for path in (self.incoming, self.uploads, folder / "datasets", folder / "jobs"):
            path.mkdir(parents=True, exist_ok=True)

    def dataset(self, dataset_id: UUID) -> Path:
        return self.folder / "datasets" / str(dataset_id)

    def job(self, job_id: UUID) -> Path:
        return self.folder / "jobs" / str(job_id)

    def attempt(self, job_id: UUID, attempt: int) -> Path:
        return self.job(job_id) / str(attempt)

    def log(self, job_id: UUID, attempt: int) -> Path:
        return self.job(job_id) / "logs" / f"{attempt}.log"

    def pictures(self, job_id: UUID) -> Path:
        return self.job(job_id) / "pictures"

    def checkpoints(self, job_id: UUID) -> Path:
        return self.job(job_id) / "checkpoints"

    def upload(self, job_id: UUID) -> Path:
        return self.job(job_id) / "upload"

    def saved(self, job_id: UUID) -> tuple[Path, ...]:
        """Return the folders from which another attempt of a job would go on."""
        return self.checkpoints(job_id), self.upload(job_id)

    def with_saved(self) -> Iterator[UUID]:
        """Yield the jobs that have such a folder; this looks into the folder of each job."""
        for path in (self.folder / "jobs").iterdir():
            with suppress(ValueError):  # a folder whose name is no id is not the service's
                job_id = UUID(path.name)
                if any(folder.is_dir() for folder in self.saved(job_id)):
                    yield job_id

    def model(self, path: str) -> Path:
        """Return the folder of a trained model; ``path`` is the relative path in its row."""
        return self.folder / path

    def relative(self, path: Path) -> str:
        return str(path.relative_to(self.folder))

    @contextmanager
    def new_dataset(self, dataset_id: UUID) -> Iterator[Path]:
        """Yield an empty folder, which becomes the dataset's folder if the block raises no error.

        If the block raises an error the folder is removed.
        """
        with written_aside(self.dataset(dataset_id), into=self.incoming) as draft:
            draft.mkdir()
            yield draft
            os.utime(draft)  # its row is written next: until then it must not look old

    @contextmanager
    def receiving(self) -> Iterator[Path]:
        """Yield an empty folder for files that come, which is removed unless it was moved away."""
        folder = self.incoming / uuid4().hex
        folder.mkdir()
        try:
            yield folder
        finally:
            self.remove(folder)

    def tidy(self, job_id: UUID, attempts: int, *, succeeded: bool, saved: bool) -> None:
        """Remove the files that an ended job needs no more; its last attempt was ``attempts``.

        The folder of that attempt stays if the job ``succeeded``. Checkpoints and uploads stay if
        the job may go on from its ``saved`` state. The files of later attempts, after a retry,
        stay too.
        """
        for path in self.job(job_id).glob("[0-9]*"):
            number = int(path.name)
            if number < attempts or (number == attempts and not succeeded):
                self.remove(path)
        self.remove(self.attempt(job_id, attempts) / "work")
        if not saved:
            for path in self.saved(job_id):
                self.remove(path)

    def remove(self, path: Path) -> None:
        """Delete a folder of the data folder, if it exists."""
        shutil.rmtree(path, ignore_errors=True)

    def set_aside(self, path: Path) -> Path:
        """Move a folder out of its place at once, and return its new path, to be removed later."""
        aside = self.incoming / uuid4().hex
        with suppress(FileNotFoundError):  # another process moved it first
            path.rename(aside)
        return aside

    def old_folders(self, kind: str) -> Iterator[tuple[UUID, Path]]:
        """Yield the folders of ``datasets`` or ``jobs`` that are a day old, with their ids."""
        for path in (self.folder / kind).iterdir():
            with suppress(OSError, ValueError):  # a name that is no id is not the service's
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    yield UUID(path.name), path

    def sweep(self) -> None:
        """Delete what is a day old in ``incoming`` and ``uploads``: nobody writes it any more."""
        for path in (*self.incoming.iterdir(), *self.uploads.iterdir()):
            with suppress(OSError):  # another process may sweep at the same time
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def writable_problem(self) -> str | None:
        """Return the reason why nothing can be written to the data folder, or None if it can."""
        probe = self.incoming / f"probe-{uuid4().hex}"
        try:
            probe.write_bytes(b"ok")
            probe.unlink()
        except OSError as error:
            logger.warning("data_folder_unwritable folder=%s error=%s", self.folder, error)
            return f"the data folder cannot be written to: {error.strerror}"
        return None


def is_disk_full(error: BaseException) -> bool:
    """Return True if an error, or one that caused it, says that no space is left on the disk."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(seen, sqlite3.Error) and seen.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
