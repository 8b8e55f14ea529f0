"""Embedded mode as a user starts it: `stylefilter up` on a fresh folder, driven over HTTP."""

import io
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from app.cli.synthetic.domain import CLASSES, write_domain
from app.client.client import Client
from app.datasets.schemas import DatasetCreate, DatasetReport
from app.jobs.request_schemas import AdaptRequest
from app.jobs.schemas import JobRead
from app.labels.schemas import DeriveRequest
from tests.processes import PACE, exit_code, processes_of, running, wait_for

pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/environ").exists(), reason="finds its processes under /proc"
    ),
]

UP = [sys.executable, "-m", "app.cli.main", "up", "--port", "0"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pair")
    write_domain(root / "source", "source", num_sections=6, size_px=128, seed=2)
    write_domain(root / "target", "target", num_sections=6, size_px=128, seed=2)
    return root


class Running:
    """A running `stylefilter up`."""

    def __init__(self, process: "Popen[bytes]", folder: Path, log: Path) -> None:
        self.process, self.folder = process, folder
        printed = wait_for(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), "URL")
        self.url = printed.group()
        with Client(self.url) as client:
            wait_for(client.ready, "/readyz")

    def processes(self) -> dict[int, str]:
        return processes_of(self.folder)

    def ended(self) -> None:
        wait_for(lambda: not self.processes(), f"the end of {self.processes()}")


@contextmanager
def up(tmp_path: Path, pair: Path) -> Iterator[Running]:
    folder, log = tmp_path / "data", tmp_path / f"up-{uuid4()}.log"
    variables = PACE | {
        "STYLEFILTER_DATA_FOLDER": str(folder),
        "STYLEFILTER_DATA_ROOTS": str(pair),
    }
    with running(UP, variables, log) as process:
        yield Running(process, folder, log)


def register(client: Client, pair: Path) -> tuple[DatasetReport, DatasetReport]:
    """The source by folder, the target by upload and with labels."""
    source = client.register_folder(
        DatasetCreate(name="source", class_names=list(CLASSES), pixel_size_nm=8.0, folder="source")
    )
    images, masks = (sorted((pair / "target" / kind).iterdir()) for kind in ("images", "masks"))
    target = client.upload_dataset(
        DatasetCreate(name="target", class_names=list(CLASSES), pixel_size_nm=10.0, tile_px=64),
        images,
        masks,
    )
    client.derive_labels(target.id, DeriveRequest(split="train"))
    return source, target


def adapt(client: Client, pair: Path, **config: object) -> JobRead:
    source, target = register(client, pair)
    body = {"source": source.id, "target": target.id, "preset": "smoke", "config": config}
    return client.adapt(AdaptRequest.model_validate(body))


def test_from_a_fresh_folder_to_a_mask(tmp_path: Path, pair: Path) -> None:
    with up(tmp_path, pair) as service, Client(service.url) as client:
        job = adapt(client, pair)
        seen = list(client.watch(job.id, interval_seconds=0.1))
        assert seen[-1].state == "succeeded", seen[-1].error
        assert [stage.stage for stage in seen[-1].stages][0] == "pretrain"
        model = next(m for m in map(client.model, seen[-1].models) if m.kind == "stylefilter")
        image = pair / "target" / "images" / "000.png"
        png = client.predict(image, {"model": str(model.id)})
        mask = np.asarray(Image.open(io.BytesIO(png)))
        assert mask.shape == (128, 128)
        assert set(np.unique(mask)) <= set(range(len(CLASSES)))


def test_stopping_ends_every_process_and_keeps_the_job(tmp_path: Path, pair: Path) -> None:
    with up(tmp_path, pair) as service:
        with Client(service.url) as client:
            job = adapt(client, pair, style={"steps": 1_000_000})
            wait_for(lambda: client.job(job.id).step, "the first step")
        assert len(service.processes()) == 3, "service, worker and trainer"
        # As a terminal does it on Ctrl-C: to every process of the foreground group.
        os.killpg(service.process.pid, signal.SIGINT)
        assert exit_code(service.process) == 0
        service.ended()
    with up(tmp_path, pair) as service:
        with Client(service.url) as client:
            # Handed back, it goes on where it was without being asked to.
            stopped = client.job(job.id).step
            assert stopped > 0
            wait_for(lambda: client.job(job.id).step > stopped, "a step of the second attempt")
        assert len(service.processes()) == 3
        service.process.terminate()
        assert exit_code(service.process) == 0
        service.ended()


def test_a_killed_service_leaves_no_process(tmp_path: Path, pair: Path) -> None:
    with up(tmp_path, pair) as service:
        with Client(service.url) as client:
            job = adapt(client, pair, style={"steps": 1_000_000})
            wait_for(lambda: client.job(job.id).step, "the first step")
        assert len(service.processes()) == 3
        service.process.kill()
        service.process.wait()
        service.ended()


def test_a_worker_that_dies_is_started_again(tmp_path: Path, pair: Path) -> None:
    with up(tmp_path, pair) as service, Client(service.url) as client:
        (worker,) = [pid for pid, line in service.processes().items() if "worker.main" in line]
        os.kill(worker, signal.SIGKILL)
        job = adapt(client, pair, style={"steps": 1_000_000})
        wait_for(lambda: client.job(job.id).step, "the first step")
        client.cancel(job.id)
        service.process.terminate()
        assert exit_code(service.process) == 0
        service.ended()
