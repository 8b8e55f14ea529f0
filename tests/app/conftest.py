"""The service as its users meet it: a real server on a free port; no worker runs."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol
from uuid import UUID

import httpx
import pytest
import uvicorn

from app.database import Database
from app.main import create_app
from app.settings import Settings
from app.storage import Storage
from tests.app.files import Folder
from tests.app.records import add_waiting
from tests.processes import DEADLINE_SECONDS


class Serve(Protocol):
    """Starts the service with the given settings; returns a client of it.

    ``root_path`` is the prefix that a proxy takes off each path.
    """

    def __call__(self, settings: Settings, root_path: str = "") -> httpx.Client: ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as running:

        def start(settings: Settings, root_path: str = "") -> httpx.Client:
            return running.enter_context(_served(settings, root_path))

        yield start


@pytest.fixture
def api(settings: Settings, serve: Serve) -> httpx.Client:
    """A client of the service with the test's settings."""
    return serve(settings)


@pytest.fixture
def folder(settings: Settings) -> Folder:
    """An empty folder `cells` under the allowed data root."""
    return Folder(settings.data_roots[0] / "cells")


class _Server(uvicorn.Server):
    """Stops at once: uvicorn's own pauses of 0.1 s would be half of the time of most tests."""

    async def main_loop(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(0.005)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in [*self.servers, *(sockets or ())]:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0.005)
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                await self._wait_tasks_to_complete()
        except TimeoutError:  # a stream that a failed test left open
            for task in self.server_state.tasks:
                task.cancel()
        await self.lifespan.shutdown()


@contextmanager
def _served(settings: Settings, root_path: str) -> Iterator[httpx.Client]:
    # Listening at once: a free port could be taken by another test process before it is bound.
    # With IPPROTO_TCP, because asyncio sets TCP_NODELAY on no other.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        create_app(settings),
        port=port,
        root_path=root_path,
        log_config=None,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="server")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service ended at once"
            thread.join(0.005)
        # Without TLS there is nothing to verify, and no certificates need to be read.
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=DEADLINE_SECONDS, verify=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_waiting(database)


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.data_folder)
