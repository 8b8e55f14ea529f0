"""Starts a service for the demo, a benchmark or a measurement, and stops it at the end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.client.client import Client
from app.client.connection import Unavailable

_START_SECONDS = 60
_STOP_SECONDS = 45


@dataclass(frozen=True)
class OwnService:
    """A running ``stylefilter up``; ``pid`` is the process of the API."""

    url: str
    pid: int
    log: Path


@contextmanager
def own_service(folder: Path, variables: Mapping[str, str]) -> Iterator[OwnService]:
    """Run ``stylefilter up`` on a free port, with its data in ``folder/service``.

    Raises Unavailable if the service ends at once. SIGTERM inside the block raises
    KeyboardInterrupt, as Ctrl-C does, so only the main thread may use this.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log_path = folder / "service.log"
    environment = {**os.environ, "STYLEFILTER_DATA_FOLDER": str(folder / "service"), **variables}
    command = [sys.executable, "-m", "app.cli.main", "up", "--port", str(port)]
    with log_path.open("wb") as log:
        # The service has a session of its own, so that Ctrl-C does not stop it at once: the
        # command may still have a job to cancel.
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        service = OwnService(f"http://127.0.0.1:{port}", process.pid, log_path)
        # If somebody stops this process, its service has to stop too.
        at_sigterm = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _wait_ready(service, process)
            yield service
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            signal.signal(signal.SIGTERM, at_sigterm)


def _wait_ready(service: OwnService, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    log = service.log
    with Client(service.url) as client:
        while not client.ready():
            if process.poll() is not None:
                raise Unavailable(
                    f"the service ended while it started. The end of its log, {log}:\n"
                    f"{log.read_text()[-2000:]}"
                )
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the service is not ready after {_START_SECONDS} s: its log {log} says why"
                )
            time.sleep(0.2)
