"""Alembic's entry point: online only, one transaction, one process at a time."""

from alembic import context
from sqlalchemy import Engine, text

from app.database import Database
from app.settings import Settings
from app.tables import Table

_LOCK = 0x5F11  # any constant: one advisory lock for all migrations of this service


def run() -> None:
    engine: Engine = context.config.attributes.get("engine") or Database(Settings().database).engine
    with engine.begin() as connection:
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


run()
