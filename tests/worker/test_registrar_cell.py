"""Crops of a public cell, registered by a job."""

import json
from pathlib import Path

import pytest

from app.datasets import service as datasets
from app.datasets.schemas import OpenOrganelleCreate
from app.jobs.schemas import JobRead
from app.registrations.service import Asked, Registrations
from app.tables import JobState
from models.data.openorganelle.fetch import fetch
from models.data.openorganelle.plan import plan_crops
from models.data.openorganelle.source import OpenOrganelleSource
from tests.models.data.openorganelle.lookalike import CELL, write_demo
from tests.worker.conftest import Service
from tests.worker.runs import result_of, run, sqlite_only

pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hierarchy of a cell under a data root of the service, whose processes begin later."""
    monkeypatch.setenv("STYLEFILTER_DATA_ROOTS", str(tmp_path / "root"))
    return write_demo(tmp_path / "root")


def registered(service: Service, **fields: object) -> JobRead:
    wanted = {"kind": "openorganelle", "name": "demo", "cell": CELL, "at": ".", **fields}
    request = OpenOrganelleCreate.model_validate(wanted)
    registrations = Registrations(
        service.database, service.storage, service.settings, service.queue
    )
    with service.storage.receiving() as folder:
        job = registrations.take(Asked(request, folder))
    assert isinstance(job, JobRead)
    return run(service, job.id)


def test_a_job_registers_crops_as_a_fetched_folder_would_be(
    service: Service, cells: Path, tmp_path: Path
) -> None:
    job = registered(service)
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    made = result_of(job).dataset
    assert made is not None
    with service.database.reading() as session:
        report = datasets.report(session, made)
    assert report.num_sections == report.num_masks == 10 + 4 + 5 + 6
    assert {section.group for section in report.sections} == {"crop1", "crop2", "crop3", "crop4"}
    told = {note.where: note.message for note in report.notes}
    place = f"./{CELL}/{CELL}.zarr/recon-1/em/fibsem-uint8/s0: z 6 to 16"
    assert place in told["images/crop1"]  # relative to the data root, as in the request
    assert any("crop10" in note.message for note in report.notes)

    out = tmp_path / "out"
    records = fetch(plan_crops(OpenOrganelleSource(cell=CELL, at=str(cells))), out)
    names = json.loads((out / "meta.json").read_text())["class_names"]
    counted = {
        name: sum(counts[number] for record in records for counts in record.class_pixels)
        for number, name in enumerate(names)
    }
    assert report.class_pixels == counted


@sqlite_only
def test_a_copy_that_lost_files_fails_the_job_and_is_named(service: Service, cells: Path) -> None:
    (cells / "recon-1/em/fibsem-uint8/s0/1/0/1").unlink()
    job = registered(service, crops=[1, 2])
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert "images/crop1" in str(job.error)
