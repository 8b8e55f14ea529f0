"""Alembic's entry point: online only, one transaction, one process at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import context
from sqlalchemy import Connection, Engine, text

from app.database import Database
from app.settings import Settings
from app.tables import Table

_LOCK = 0x5F11  # any constant: one advisory lock for all migrations of this service


def run() -> None:
    engine: Engine = context.config.attributes.get("engine") or Database(Settings().database).engine
    with engine.connect() as connection, _tables_may_be_replaced(connection), connection.begin():
        # SQLite serialises by itself: every writing transaction begins IMMEDIATE.
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
    """On SQLite a column changes by copying its table and dropping the old one.

    With foreign keys on, that drop would delete, or be refused for, all rows that refer to it.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    plain = connection.connection.cursor()  # the pragma does nothing inside a transaction
    plain.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        plain.execute("PRAGMA foreign_keys=ON")


run()
