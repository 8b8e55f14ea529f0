"""A service without HTTP: settings, a fresh database and a registered synthetic pair."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, make_transient, undefer

from app.cli.synthetic.domain import CLASSES, write_domain
from app.database import Database
from app.datasets.registrar import Registrar
from app.datasets.registration import folder_files
from app.datasets.schemas import DatasetCreate
from app.jobs import service as jobs
from app.jobs.checks import Context
from app.jobs.drafts import JobRequest
from app.jobs.queue import JobQueue
from app.jobs.request_schemas import AdaptRequest
from app.jobs.schemas import JobRead
from app.jobs.submission import submit
from app.labels import service as labels
from app.labels.changes import AskedChange
from app.labels.schemas import DeriveRequest
from app.settings import Settings
from app.storage import Storage
from app.tables import Dataset, Image, Job, TrainedModel
from tests.processes import PACE


@dataclass(frozen=True)
class Stock:
    """A pair that was registered once; tests copy its rows and files."""

    folder: Path
    source: UUID
    target: UUID
    rows: list[Dataset | Image]


@dataclass(frozen=True)
class Service:
    """What the API holds, and the two datasets."""

    settings: Settings
    database: Database
    storage: Storage
    queue: JobQueue
    source: UUID
    target: UUID

    def submit(self, request: JobRequest) -> UUID:
        with self.database.session() as session:
            return submit(Context(session, self.settings), self.queue, request).id

    def adapt(self, *, reuse: bool = True, **config: Any) -> UUID:
        """Submit preset smoke with these fields of the config."""
        pair = {"source": self.source, "target": self.target}
        body = pair | {"preset": "smoke", "config": config, "reuse": reuse}
        return self.submit(AdaptRequest.model_validate(body))

    def endless(self) -> UUID:
        """Submit a job that will not end by itself within a test."""
        return self.adapt(pretrain={"steps": 1_000_000, "validate_every_steps": 1_000_000})

    def job(self, job_id: UUID) -> JobRead:
        with self.database.reading() as session:
            return jobs.get(session, job_id)

    def row(self, job_id: UUID) -> Job:
        with self.database.reading() as session:
            return session.get_one(Job, job_id)

    def models(self) -> list[TrainedModel]:
        with self.database.reading() as session:
            return list(session.scalars(select(TrainedModel).order_by(TrainedModel.created_at)))

    def cancel(self, job_id: UUID) -> None:
        with self.database.session() as session:
            jobs.cancel(session, job_id)

    def files(self, job_id: UUID) -> set[str]:
        """Paths of all files that the job left, from its folder on, but for its pictures."""
        folder, pictures = self.storage.job(job_id), self.storage.pictures(job_id)
        # os.walk passes over a folder that is removed meanwhile, where Path.rglob raises.
        files = [Path(base) / name for base, _, names in os.walk(folder) for name in names]
        return {str(p.relative_to(folder)) for p in files if not p.is_relative_to(pictures)}


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Stock:
    root = tmp_path_factory.mktemp("stock")
    path = root / "stock.db"
    path.write_bytes(sqlite_template.read_bytes())
    settings = Settings(data_folder=root / "data", data_roots=(root,))
    database, storage = Database(f"sqlite:///{path}"), Storage(settings.data_folder)
    ids = []
    for name, pixel_nm, tile_px in (("source", 4.0, None), ("target", 5.0, 64)):
        write_domain(root / name, name, num_sections=6, size_px=128, seed=1)  # type: ignore[arg-type]
        request = DatasetCreate(
            name=name, class_names=list(CLASSES), pixel_size_nm=pixel_nm, tile_px=tile_px
        )
        files = folder_files(settings, name)
        ids.append(Registrar(database, storage, settings).register(request, files).dataset_id)
    labels.derive(database, ids[1], DeriveRequest(split="train"), AskedChange())
    with database.session() as session:
        rows = _detached(session)
    database.close()
    return Stock(settings.data_folder, *ids, rows)


def _detached(session: Session) -> list[Dataset | Image]:
    rows: list[Dataset | Image] = [
        *session.scalars(select(Dataset).options(undefer("*"))),
        *session.scalars(select(Image)),
    ]
    for row in rows:
        make_transient(row)
    return rows


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> Settings:
    """Short intervals and the test's own folder, in the environment for the processes to come."""
    variables = PACE | {
        "STYLEFILTER_LEASE_SECONDS": "60",  # a trainer of a busy machine may be silent for seconds
        "STYLEFILTER_DATA_FOLDER": str(tmp_path / "data"),
        "STYLEFILTER_DATABASE_URL": database_url,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.fixture
def service(fast: Settings, stock: Stock) -> Iterator[Service]:
    copytree(stock.folder / "datasets", fast.data_folder / "datasets")
    database, queue = Database(fast.database), JobQueue(fast)
    with database.session() as session:
        for row in stock.rows:
            session.merge(row)
        session.commit()
    storage = Storage(fast.data_folder)
    yield Service(fast, database, storage, queue, stock.source, stock.target)
    queue.close()
    database.close()
