"""The typed client, against the running service."""

import os
import resource
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from app.client.client import Client
from app.client.connection import ApiError
from app.database import Database
from app.datasets.schemas import DatasetCreate
from app.jobs.request_schemas import AdaptRequest
from app.labels.schemas import ChangeNote, DeriveRequest, ImageLabels, LabelsUpdate
from app.tables import Job, JobKind, JobState
from models.config.presets import preset
from models.data.labels import LabelState
from tests.app.files import METADATA, Folder, grey, mask, png
from tests.app.records import add_job, add_model

PART = {"adaptation": {"accumulate": 2}, "seed": 5}
"""A part of a config: it is right in the preset `quick` alone, whose batches are of 4."""


@pytest.fixture
def client(api: httpx.Client):
    with Client(str(api.base_url)) as client:
        yield client


def register(client: Client, folder: Path, **metadata: object):
    image, labels = folder / "a.png", folder / "a.mask.png"
    image.write_bytes(png(grey(1)))
    labels.write_bytes(png(mask()))
    masks = folder / "masks"
    masks.mkdir(exist_ok=True)
    labels = labels.rename(masks / "a.png")
    return client.upload_dataset(DatasetCreate(**METADATA | metadata), [image], [labels])


def test_from_files_to_a_cancelled_job(client: Client, database: Database, tmp_path: Path) -> None:
    assert client.ready()
    source = register(client, tmp_path)
    target = register(client, tmp_path, tile_px=16)
    assert (source.num_images, target.num_images) == (1, 12)
    labels = LabelsUpdate(labels=[ImageLabels(image=2, classes={"organelle": LabelState.ABSENT})])
    assert client.put_labels(target.id, labels).counts["organelle"][LabelState.ABSENT] == 1
    assert client.derive_labels(target.id, DeriveRequest(min_pixels=2)).changed_images == 12
    request = AdaptRequest.model_validate(
        {"source": source.id, "target": target.id, "preset": "quick", "config": PART}
    )
    job = client.adapt(request)
    assert job.kind == JobKind.ADAPT
    assert job.config == preset("quick").changed(PART).model_dump(mode="json")
    seen = []
    for now in client.watch(job.id, interval_seconds=0):
        seen.append(now.state)
        if len(seen) == 2:
            client.cancel(job.id)
    assert seen == [JobState.QUEUED, JobState.QUEUED, JobState.CANCELLED]
    model = add_model(database, add_job(database, str(source.id)), str(source.id))
    assert client.model(model).source == source.id


def test_labels_as_a_table_their_history_and_tile_sizes(client: Client, tmp_path: Path) -> None:
    dataset = register(client, tmp_path, tile_px=16).id
    labels = LabelsUpdate(
        labels=[ImageLabels(section="a", tile=5, classes={"organelle": LabelState.PRESENT})]
    )
    first = client.put_labels(dataset, labels, ChangeNote(by="Ann", seconds=2))
    assert (first.version, first.changed_images) == (1, 1)
    table = tmp_path / "labels.csv"
    table.write_bytes(client.labels_table(dataset).replace(b"a,5,,1", b"a,5,0,0"))
    assert client.put_labels(dataset, table, version="1").version == 2
    with pytest.raises(ApiError, match="version"):
        client.put_labels(dataset, labels, version="1")
    with pytest.raises(ApiError, match="version"):
        client.derive_labels(dataset, DeriveRequest(), version="1")
    history = list(client.label_history(dataset))
    assert [(each.version, each.by, each.seconds) for each in history] == [
        (2, None, None),
        (1, "Ann", 2),
    ]
    assert list(client.labels(dataset))[5].classes["organelle"] == LabelState.ABSENT
    assert client.tile_sizes(dataset).sizes[0].shares["organelle"] == 1


def test_a_folder_of_the_service(client: Client, folder: Folder) -> None:
    folder.image("a.png", png(grey(1)))
    report = client.register_folder(DatasetCreate(**folder.metadata))
    assert [section.name for section in report.sections] == ["a"]


def test_refusals_are_raised_in_the_words_of_the_service(
    client: Client, database: Database, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"x")
    image = tmp_path / "grey.tif"
    image.write_bytes(png(grey(1))[:60])
    with pytest.raises(ApiError) as refused:
        client.upload_dataset(DatasetCreate(**METADATA), [broken, image])
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("POST /datasets: 2 ")
    assert lines[1].startswith("  images/broken.png: ")
    assert lines[2].startswith("  images/grey.tif: is damaged")
    unknown = uuid4()
    with pytest.raises(ApiError, match=f"GET /jobs/{unknown}: .* {unknown}"):
        client.job(unknown)
    with pytest.raises(ApiError, match=f"model {unknown}"):
        client.predict(broken, {"model": str(unknown)})
    source = register(client, tmp_path)
    job = add_job(database, str(source.id), state=JobState.QUEUED)
    client.cancel(job)
    with pytest.raises(ApiError, match="is cancelled"):
        client.cancel(job)
    with database.reading() as session:
        assert session.get_one(Job, UUID(str(job))).state == JobState.CANCELLED


def test_a_service_that_is_not_there() -> None:
    with Client("http://127.0.0.1:1") as client:
        assert not client.ready()
        with pytest.raises(ApiError, match="GET /jobs/.*: .*refused"):
            client.job(uuid4())


class _Proxy(BaseHTTPRequestHandler):
    """Answers as a proxy does whose service is down: not with a problem."""

    def do_GET(self) -> None:
        self.send_response(502)
        self.end_headers()
        self.wfile.write(b"<html>Bad Gateway</html>")

    def log_message(self, *_args: object) -> None:
        pass


def test_an_answer_that_is_no_problem_is_told_by_its_status() -> None:
    with HTTPServer(("127.0.0.1", 0), _Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{server.server_port}") as client:
                with pytest.raises(ApiError, match="status 502"):
                    client.job(uuid4())
                assert not client.ready()
        finally:
            server.shutdown()
            thread.join()


def test_files_are_opened_one_at_a_time(client: Client, tmp_path: Path) -> None:
    images = [tmp_path / f"{n}.png" for n in range(60)]
    for seed, image in enumerate(images):
        image.write_bytes(png(grey(seed)))
    assert client.ready()  # connected
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as opened:
        for _ in range(120):
            opened.enter_context(open(os.devnull, "rb"))
        used = len(os.listdir("/proc/self/fd"))
        # The service runs in this process: its own files need a few.
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, before[1]))
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        report = client.upload_dataset(DatasetCreate(**METADATA), images)
    assert report.num_images == 60


def test_a_file_that_cannot_be_read_is_said(client: Client, tmp_path: Path) -> None:
    gone = tmp_path / "gone.png"
    with pytest.raises(ApiError, match=r"No such file.*gone\.png"):
        client.upload_dataset(DatasetCreate(**METADATA), [gone])
    with pytest.raises(ApiError, match=r"POST /predict: .*No such file.*gone\.png"):
        client.predict(gone, {"model": str(uuid4())})


def test_the_client_says_why_it_cannot_follow(api: httpx.Client) -> None:
    unknown = uuid4()
    with Client(str(api.base_url)) as client, pytest.raises(ApiError, match="no job"):
        list(client.events(unknown))
    with Client("http://127.0.0.1:1") as client, pytest.raises(ApiError, match="refused"):
        list(client.events(unknown))
