"""Connects API and workers to the database, SQLite or PostgreSQL, by synchronous sessions."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Connection,
    DateTime,
    Dialect,
    Engine,
    TypeDecorator,
    create_engine,
    event,
    literal,
)
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

_TURN_SECONDS = 0.12
_KEPT_CONNECTIONS = 8  # the others are closed after use
_POOL_SECONDS = 20.0

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


class UtcDateTime(TypeDecorator[datetime]):
    """Stores times in UTC, and returns them with their time zone, which SQLite does not keep."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class now_plus(FunctionElement[Any]):
    """Gives the time of the database's clock, plus ``seconds``.

    All times come from this one clock, so that leases never depend on the clocks of two machines.
    """

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: float = 0) -> None:
        super().__init__(literal(float(seconds)))


@compiles(now_plus, "postgresql")
def _now_postgresql(element: now_plus, compiler: SQLCompiler, **kwargs: Any) -> str:
    seconds = compiler.process(element.clauses, **kwargs)
    return f"(clock_timestamp() + make_interval(secs => {seconds}))"


@compiles(now_plus, "sqlite")
def _now_sqlite(element: now_plus, compiler: SQLCompiler, **kwargs: Any) -> str:
    seconds = compiler.process(element.clauses, **kwargs)
    # SQLAlchemy reads the fraction as microseconds and SQLite writes milliseconds, so the fraction
    # is padded to six digits.
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds} || ' seconds') || '000')"


class Database:
    """Holds the SQLAlchemy engine of a database, opens sessions and migrates the tables."""

    def __init__(self, url: str, connections: int = 16) -> None:
        """Prepare to open up to ``connections`` connections at once; none is opened yet."""
        self.url = make_url(url)
        self.engine = self._make_engine(connections)

    def _make_engine(self, connections: int) -> Engine:
        kept = min(connections, _KEPT_CONNECTIONS)
        pool: dict[str, Any] = {
            "pool_size": kept,
            "max_overflow": connections - kept,
            "pool_timeout": _POOL_SECONDS,
        }
        if self.url.get_backend_name() != "sqlite":
            return create_engine(self.url, pool_pre_ping=True, pool_recycle=1800, **pool)
        Path(self.url.database or "").parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(self.url, connect_args={"timeout": 30}, **pool)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session that may write; the caller commits."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session that only reads; on SQLite it takes no write lock."""
        engine = self.engine.execution_options(read_only=True)
        with Session(engine, expire_on_commit=False) as session:
            yield session

    def give_way(self) -> None:
        """Let other writers in between two of many transactions.

        SQLite has one writer at a time, and one that waits looks for its turn every 100 ms.
        """
        if self.engine.dialect.name == "sqlite":
            time.sleep(_TURN_SECONDS)

    def migrate(self) -> None:
        """Bring the tables to the newest revision. Several processes may do so at once."""
        command.upgrade(self.alembic_config(), "head")

    def revision_problem(self) -> str | None:
        """Return the reason why the tables do not fit this code, or None if they do."""
        head = ScriptDirectory.from_config(self.alembic_config()).get_current_head()
        with self.engine.execution_options(read_only=True).connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        if current == head:
            return None
        return (
            f"the tables are at revision {current or 'nothing'} and this version needs {head}: run "
            "`stylefilter migrate`"
        )

    def alembic_config(self) -> Config:
        """Return the configuration with which Alembic migrates this database."""
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["engine"] = self.engine
        return config

    def close(self) -> None:
        self.engine.dispose()


def only_read(session: Session) -> None:
    """Declare, after a commit, that the session only reads from now on.

    On SQLite it then takes no write lock.
    """
    session.connection(execution_options={"read_only": True})


def _configure_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    # Otherwise pysqlite begins transactions by itself, too late to take the write lock at once.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that has read cannot wait for the write lock any more, so a session that may
    # write takes the lock when it begins.
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
