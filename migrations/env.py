"""Runs the migrations for Alembic: in one transaction, and in one process at a time.

Alembic's offline mode, which writes SQL to a file, is not supported.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import context
from sqlalchemy import Connection, Engine, text

from app.database import Database
from app.settings import Settings
from app.tables import Table

_LOCK = 0x5F11  # an arbitrary number that names the advisory lock of this service's migrations


def run() -> None:
    engine: Engine = context.config.attributes.get("engine") or Database(Settings().database).engine
    with engine.connect() as connection, _tables_may_be_replaced(connection), connection.begin():
        # SQLite needs no lock, because every writing transaction begins IMMEDIATE.
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        context.configure(
            connection=connection,
            target_metadata=Table.metadata,
            render_as_batch=True,
            compare_type=True,
        )
        context.run_migrations()
        if connection.dialect.name == "sqlite":
            broken = connection.execute(text("PRAGMA foreign_key_check")).all()
            assert not broken, f"rows that refer to nothing: {broken}"


@contextmanager
def _tables_may_be_replaced(connection: Connection) -> Iterator[None]:
    """Switch foreign keys off on SQLite while the migrations run.

    On SQLite a column is changed by copying its table and dropping the old table. With foreign keys
    on, the drop would delete all rows that refer to the table, or would be refused because of them.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    plain = connection.connection.cursor()  # inside a transaction the pragma would do nothing
    plain.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        plain.execute("PRAGMA foreign_keys=ON")


run()
