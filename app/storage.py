"""Where bytes live: folders under the data folder, written aside and renamed last."""

import errno
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

from models.files import written_aside

_STALE_SECONDS = 24 * 3600


class Storage:
    """The layout of the data folder.

    ``datasets/<id>`` a dataset's arrays; ``jobs/<id>/<attempt>`` what one attempt of a job wrote:
    its working files and its weights; ``jobs/<id>/logs`` what each attempt's trainer said;
    ``jobs/<id>/pictures`` what its networks made of an image as they trained;
    ``jobs/<id>/checkpoints`` the state of its stages, of all attempts, until it succeeds, is
    cancelled or failed some days ago; ``incoming`` what is being written and not yet real.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming = folder / "incoming"
        for path in (self.incoming, folder / "datasets", folder / "jobs"):
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

    def with_checkpoints(self) -> Iterator[UUID]:
        """Jobs that have checkpoints: looks into the folder of every job."""
        for path in (self.folder / "jobs").glob("*/checkpoints"):
            with suppress(ValueError):  # not a folder of ours
                yield UUID(path.parent.name)

    def model(self, path: str) -> Path:
        """Absolute folder of a trained model from the relative path in its row."""
        return self.folder / path

    def relative(self, path: Path) -> str:
        return str(path.relative_to(self.folder))

    @contextmanager
    def new_dataset(self, dataset_id: UUID) -> Iterator[Path]:
        """A folder to fill; it becomes the dataset's when the block ends well, else it goes."""
        with written_aside(self.dataset(dataset_id), into=self.incoming) as draft:
            draft.mkdir()
            yield draft

    def tidy(self, job_id: UUID, attempts: int, *, succeeded: bool, saved: bool) -> None:
        """Remove what a job that has ended needs no more: of its attempts up to the last one.

        That one's folder stays if it ``succeeded``, and checkpoints if the job may go on from what
        it ``saved``. Later attempts, of a retry, are left alone.
        """
        for path in self.job(job_id).glob("[0-9]*"):
            number = int(path.name)
            if number < attempts or (number == attempts and not succeeded):
                self.remove(path)
        self.remove(self.attempt(job_id, attempts) / "work")
        if not saved:
            self.remove(self.checkpoints(job_id))

    def remove(self, path: Path) -> None:
        """Delete a folder of the store; a missing one is fine."""
        shutil.rmtree(path, ignore_errors=True)

    def set_aside(self, path: Path) -> Path:
        """Take a folder from its place at once; what is returned may be removed slowly."""
        aside = self.incoming / uuid4().hex
        with suppress(FileNotFoundError):  # another process was first
            path.rename(aside)
        return aside

    def sweep(self) -> None:
        """Delete what a process that died left in ``incoming`` a day ago or earlier."""
        for path in self.incoming.iterdir():
            with suppress(OSError):  # another process sweeps too
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def writable_problem(self) -> str | None:
        """Why nothing can be written, or None."""
        probe = self.incoming / f"probe-{uuid4().hex}"
        try:
            probe.write_bytes(b"ok")
            probe.unlink()
        except OSError as error:
            return f"data folder {self.folder} is not writable: {error.strerror}"
        return None


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that no space is left."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(seen, sqlite3.Error) and seen.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
