"""Many requests at once on a real server: cheap ones are answered, and none fails."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from uuid import UUID

import httpx
import numpy as np
import pytest

from app.database import Database
from app.settings import Settings
from app.storage import Storage
from tests.app.conftest import Serve
from tests.app.files import grey, png, problem, registered, upload
from tests.app.streams import claimed, log_of
from tests.processes import DEADLINE_SECONDS

CHEAP = ("/livez", "/readyz", "/datasets", "/jobs", "/models", "/metrics")
HEAD = b"POST /datasets HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n"
HEAD += b"content-type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"


@contextmanager
def connected(api: httpx.Client, request: bytes) -> Iterator[socket.socket]:
    """A connection on which a request was sent and no answer is read."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.settimeout(DEADLINE_SECONDS)
        connection.connect((api.base_url.host, api.base_url.port))
        connection.sendall(request)
        yield connection


def test_many_cheap_requests_at_once_are_all_answered(api: httpx.Client) -> None:
    """More of them than there are threads and connections to the database."""

    async def main() -> Counter[int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=api.base_url, timeout=DEADLINE_SECONDS, limits=limits, verify=False
        ) as client:
            answers = await asyncio.gather(*(client.get("/jobs") for _ in range(120)))
        return Counter(answer.status_code for answer in answers)

    assert asyncio.run(main()) == {200: 120}


def test_clients_that_read_slowly_hold_no_connection_to_the_database(
    api: httpx.Client, database: Database, job_id: UUID, storage: Storage
) -> None:
    log_of(storage, claimed(database)).write_bytes(b"line\n" * (2 << 20))
    ask = f"GET /jobs/{job_id}/log?tail_bytes={8 << 20} HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with ExitStack() as slow:
        for _ in range(25):
            connection = slow.enter_context(connected(api, ask.encode()))
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        for path in CHEAP:
            assert api.get(path).status_code == 200, path


def test_cheap_requests_are_answered_while_heavy_ones_wait(
    settings: Settings, serve: Serve
) -> None:
    api = serve(settings.model_copy(update={"heavy_threads": 1, "heavy_queue": 100}))
    noise = {"a.png": png(grey(1, 1600, 1600))}
    path = f"/datasets/{registered(upload(api, noise))['id']}/images/0"
    with ThreadPoolExecutor(12) as clients:
        previews = [clients.submit(api.get, path) for _ in range(12)]
        waiting = []
        for cheap in CHEAP:
            assert api.get(cheap).status_code == 200
            waiting.append(sum(not preview.done() for preview in previews))
        answers = [preview.result(DEADLINE_SECONDS) for preview in previews]
    assert {answer.status_code for answer in answers} == {200}
    assert min(waiting) > 0


def test_a_full_queue_of_heavy_requests_is_busy(settings: Settings, serve: Serve) -> None:
    api = serve(settings.model_copy(update={"heavy_threads": 1, "heavy_queue": 0}))
    noise = {"a.png": png(grey(1, 2500, 2500))}
    path = f"/datasets/{registered(upload(api, noise))['id']}/images/0"
    together = threading.Barrier(12)

    def preview() -> httpx.Response:
        together.wait(DEADLINE_SECONDS)
        return api.get(path)

    with ThreadPoolExecutor(12) as clients:
        answers = [future.result() for future in [clients.submit(preview) for _ in range(12)]]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 12
    for answer in refused:
        assert problem(answer, 503)["code"] == "busy"
        assert int(answer.headers["retry-after"]) > 0
    assert api.get(path).status_code == 200


def test_an_upload_takes_its_place_before_it_is_received(api: httpx.Client) -> None:
    other = {"a.png": png(np.zeros((16, 16), np.uint8) + np.arange(16, dtype=np.uint8))}
    with ExitStack() as unfinished:
        while (answer := upload(api, other)).status_code == 201:
            assert api.delete(answer.headers["location"]).status_code == 204
            unfinished.enter_context(connected(api, HEAD))
        assert problem(answer, 503)["code"] == "busy"
        assert int(answer.headers["retry-after"]) > 0
        for cheap in CHEAP:
            assert api.get(cheap).status_code == 200, cheap
    while (answer := upload(api, other)).status_code != 201:
        problem(answer, 503)


@pytest.mark.parametrize("bodies", [40])
def test_large_bodies_of_json_are_read_beside_cheap_requests(
    api: httpx.Client, bodies: int
) -> None:
    body = {"source": "x", "rows": ["cut"] * 100, "config": {"a": ["x" * 90] * 20_000}}
    with ThreadPoolExecutor(bodies) as clients:
        sent = [clients.submit(api.post, "/jobs/benchmark", json=body) for _ in range(bodies)]
        assert api.get("/livez").status_code == 200
        statuses = {future.result(DEADLINE_SECONDS).status_code for future in sent}
    assert statuses <= {422, 503}
    assert 422 in statuses
