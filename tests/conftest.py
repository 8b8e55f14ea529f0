"""Fixtures of all tests: real databases, a real broker, real files."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.database import Database
from app.settings import Settings
from app.tables import Table
from tests import services
from tests.old_state import open_state
from tests.s3 import ENVIRONMENT, S3Server, s3_server

_STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
_NOBODY = 65534
_running: list[pytest.Item] = []


@pytest.hookimpl(tryfirst=True)  # before the marks select
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests whose fixtures start a service or a server."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if {"postgres_url", "redis_url"} & fixtures:
            item.add_marker(pytest.mark.services)
        if "serve" in fixtures:
            item.add_marker(pytest.mark.http)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.pop()


def _refuse_processes(event: str, _: object) -> None:
    """Keep the marks honest: `make test-fast` leaves out what starts processes."""
    if event in _STARTS and _running:
        marks = {mark.name for mark in _running[-1].iter_markers()}
        if not marks & {"processes", "services", "slow", "chaos"}:
            raise PermissionError("this test starts a process: mark it `processes`")


sys.addaudithook(_refuse_processes)

# A shell that starts us in the background makes us, and all we start, deaf to Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a PostgreSQL server; without one the test skips, or fails where one is required."""
    try:
        with services.postgres() as url:
            yield url
    except services.NoService as error:
        services.without(str(error))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of an empty Redis database; without one the test skips, or fails as above."""
    try:
        with services.redis_server() as url:
            yield url
    except services.NoService as error:
        services.without(str(error))


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_url: str) -> Iterator[str]:
    """SQLAlchemy URL of a PostgreSQL database that the migrations have built."""
    with _new_database(postgres_url) as name:
        url = _sqlalchemy_url(postgres_url, name)
        database = Database(url)
        database.migrate()
        database.close()
        yield url


@pytest.fixture
def postgres_database_url(migrated_postgres_url: str) -> Iterator[str]:
    """SQLAlchemy URL of a migrated PostgreSQL database without rows.

    One for all tests, emptied after each: dropping a database takes PostgreSQL a second.
    """
    yield migrated_postgres_url
    _empty(migrated_postgres_url)


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """An S3 server with the empty bucket ``cells``; the environment names it and its keys."""
    _s3_server.client.create_bucket(Bucket="cells")
    for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": _s3_server.url}).items():
        monkeypatch.setenv(name, value)
    yield _s3_server
    _s3_server.reset()


@pytest.fixture
def anybody() -> Iterator[Path]:
    """A folder of a user to whom permissions matter, as they do not to root."""
    with tempfile.TemporaryDirectory() as folder:
        root = os.geteuid() == 0
        if root:
            os.chown(folder, _NOBODY, -1)
            os.seteuid(_NOBODY)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path, sqlite_template: Path) -> str:
    """SQLAlchemy URL of a fresh, migrated database: the test runs on SQLite and PostgreSQL."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_database_url")
        return url
    path = tmp_path / "stylefilter.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Settings on the fresh database, with a data folder and one data root of the test's own."""
    root = tmp_path / "root"
    root.mkdir()
    return Settings(data_folder=tmp_path / "data", database_url=database_url, data_roots=(root,))


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database)
    yield database
    database.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def old_state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a copy of what commit 313dbdf left, its schema not yet migrated."""
    if request.param == "sqlite":
        yield open_state(tmp_path)
        return
    server: str = request.getfixturevalue("postgres_url")
    with _new_database(server) as name:
        yield open_state(tmp_path, _sqlalchemy_url(server, name))


def _empty(url: str) -> None:
    """Delete all rows, after ending whatever a test left connected."""
    database = Database(url)
    with database.session() as session:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        session.execute(
            text(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")
        )
        for table in reversed(Table.metadata.sorted_tables):
            session.execute(table.delete())
        session.commit()
    database.close()


@contextmanager
def _new_database(server: str) -> Iterator[str]:
    name = f"stylefilter_test_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            yield name
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def _sqlalchemy_url(server: str, name: str) -> str:
    url = make_url(server).set(drivername="postgresql+psycopg", database=name)
    return url.render_as_string(hide_password=False)
