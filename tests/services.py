"""PostgreSQL and Redis for tests: servers of the tests' own, unless variables name others.

Without variables the tests start both servers on free ports and end them. The binaries are those
that Debian's packages ``postgresql`` and ``redis-server`` install. A server that a variable names
must answer; PostgreSQL must let its user create databases, and Redis must be empty.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from tests.processes import wait_for

POSTGRES_URL_VARIABLE = "STYLEFILTER_TEST_DATABASE_URL"
REDIS_URL_VARIABLE = "STYLEFILTER_TEST_REDIS_URL"
REQUIRE_VARIABLE = "STYLEFILTER_REQUIRE_SERVICES"


class NoService(Exception):
    """The binaries of a server are not installed."""


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Give the URL of a PostgreSQL server on which databases may be made."""
    given = os.environ.get(POSTGRES_URL_VARIABLE)
    if given is None:
        with own_postgres() as server:
            yield server.url
        return
    if not _postgres_answers(given):
        pytest.fail(f"{POSTGRES_URL_VARIABLE}: no server there lets its user create databases")
    yield given


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Give the URL of an empty Redis database; it is emptied at the end."""
    given = os.environ.get(REDIS_URL_VARIABLE)
    if given is None:
        with own_redis() as server:
            yield server.url
        return
    if not _redis_answers(given):
        pytest.fail(f"{REDIS_URL_VARIABLE}: no server answers there")
    with redis.Redis.from_url(given) as client:
        if client.dbsize():
            pytest.fail(f"{REDIS_URL_VARIABLE}: the database holds keys; name an empty one")
        yield given
        client.flushdb()


def without(reason: str) -> None:
    """Skip the test for want of a service, or fail it where services are required."""
    if os.environ.get(REQUIRE_VARIABLE):
        pytest.fail(f"services are required here: {reason}")
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _postgres_answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=10, autocommit=True) as connection:
            row = connection.execute(
                "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            return bool(row and row[0])
    except psycopg.OperationalError:
        return False


def _redis_answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=10) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


class OwnPostgres:
    """A PostgreSQL server of our own, from installed binaries; it may be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._binaries = _postgres_binaries()
        # PostgreSQL refuses to run as root.
        self._user = _unprivileged_user() if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(folder, self._user)
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        initdb = [str(self._binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres"]
        subprocess.run(
            [*initdb, "-A", "trust", "--no-sync", "--no-instructions"],
            check=True,
            user=self._user,
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        options = ["-p", str(self._port), "-c", "listen_addresses=127.0.0.1"]
        options += ["-k", str(self._folder), "-c", "fsync=off", "-c", "full_page_writes=off"]
        self._server = subprocess.Popen(
            [str(self._binaries / "postgres"), "-D", str(self._folder / "data"), *options],
            user=self._user,
            cwd=self._folder,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _wait_for(self._server, lambda: _postgres_answers(self.url), "PostgreSQL")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT cuts all connections and shuts down, SIGQUIT is a crash."""
        assert self._server is not None
        self._server.send_signal(number)
        self._server.wait()


class OwnRedis:
    """A Redis server of our own that keeps nothing on disk; it may be stopped and started."""

    def __init__(self) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            raise NoService("redis-server is not installed")
        port = free_port()
        self._command = [binary, "--port", str(port), "--bind", "127.0.0.1"]
        self._command += ["--save", "", "--appendonly", "no"]
        self.url = f"redis://127.0.0.1:{port}/0"
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._server = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, start_new_session=True
        )
        _wait_for(self._server, lambda: _redis_answers(self.url), "Redis")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self._server is not None
        self._server.send_signal(number)
        self._server.wait()


@contextlib.contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    # Not pytest's folder: the server's own user could not enter it.
    folder = Path(tempfile.mkdtemp(prefix="stylefilter-postgres-"))
    try:
        server = OwnPostgres(folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def own_redis() -> Iterator[OwnRedis]:
    server = OwnRedis()
    try:
        yield server
    finally:
        server.stop()


def _postgres_binaries() -> Path:
    found = shutil.which("postgres")
    candidates = [Path(found).parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in candidates:
        if (folder / "initdb").exists():
            return folder
    raise NoService("PostgreSQL's initdb is not installed")


def _unprivileged_user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _wait_for(server: "subprocess.Popen[bytes]", answers: Callable[[], bool], name: str) -> None:
    def ready() -> bool:
        assert server.poll() is None, f"{name} ended with code {server.returncode} as it started"
        return answers()

    wait_for(ready, f"{name} answers")
