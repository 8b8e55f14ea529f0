"""What commit 313dbdf left, opened anew: its data folder, and its rows at revision 0004."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import copytree
from typing import Any
from uuid import UUID

from alembic import command
from alembic.config import Config
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, text

from app.database import MIGRATIONS, Database
from app.settings import Settings

FOLDER = Path(__file__).parent / "fixtures" / "state_313dbdf"
REVISION = "0004"
"""Revision of the schema in ``state.sql``."""

_TABLES = (
    "datasets",
    "images",
    "jobs",
    "trained_models",
    "job_dependencies",
    "job_events",
    "idempotency_keys",
    "webhook_deliveries",
    "job_stages",
    "metric_points",
)
"""Tables of that revision; each refers to those before it, and to its own earlier rows."""


class Expected(BaseModel):
    """Facts of the state that its maker wrote down; the ids are those of the rows."""

    model_config = ConfigDict(extra="forbid")

    datasets: dict[str, UUID]
    """source, target, deleted."""
    jobs: dict[str, UUID]
    """adapt, evaluate, benchmark; failed, cancelled, paused, interrupted, killed."""
    models: dict[str, UUID]
    """style, segmenter and stylefilter of the job adapt; target-only of the benchmark."""
    rows: dict[str, int]
    """Number of rows of each table."""
    answers: dict[str, int]
    """Status codes with which commit 313dbdf answered these paths."""
    resumed: dict[str, dict[str, str]]
    """SHA-256 of weights by kind: the stopped jobs as commit 313dbdf ended them where the state
    was made. Another processor rounds otherwise."""


def expected() -> Expected:
    """Return what the maker of the state wrote down."""
    return Expected.model_validate_json((FOLDER / "expected.json").read_bytes())


def old_configs() -> dict[str, dict[str, Any]]:
    """Return a config of every earlier schema by its file and preset: ``0001_4f2c61d/quick``."""
    return {
        f"{path.stem}/{preset}": config
        for path in sorted((FOLDER.parent / "configs").glob("*.json"))
        for preset, config in json.loads(path.read_bytes()).items()
    }


def open_state(tmp_path: Path, postgres_url: str | None = None) -> Settings:
    """Copy the state to ``tmp_path`` and return its settings; the schema stays at revision 0004.

    The database is SQLite in the copied data folder, as embedded mode has it, or the PostgreSQL
    database of the URL, which must be empty.
    """
    settings = Settings(data_folder=tmp_path / "old", database_url=postgres_url or "")
    copytree(FOLDER / "data", settings.data_folder)
    if postgres_url is None:
        _dumped(settings.data_folder / "stylefilter.db").close()
        return settings
    with closing(Database(settings.database)) as database, closing(_dumped(":memory:")) as old:
        _build(database)
        with database.engine.begin() as new:
            for table in _TABLES:
                _copy(old, new, table)
    return settings


def _dumped(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    database.executescript((FOLDER / "state.sql").read_text())
    return database


def _build(database: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = database.engine
    command.upgrade(config, REVISION)


def _copy(old: sqlite3.Connection, new: Connection, table: str) -> None:
    """Copy the rows of a table to PostgreSQL, whose sequence then counts on from them."""
    query = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = :name"
    types: dict[str, str] = dict(new.execute(text(query), {"name": table}).all())
    names = ", ".join(types)
    rows = list(_rows(old.execute(f"SELECT {names} FROM {table} ORDER BY rowid"), types))
    values = ", ".join(f"CAST(:{name} AS {kind})" for name, kind in types.items())
    if rows:
        new.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), rows)
    if "id" in types and types["id"] == "bigint":
        sequence = f"pg_get_serial_sequence('{table}', 'id')"
        new.execute(text(f"SELECT setval({sequence}, max(id)) FROM {table}"))


def _rows(cursor: sqlite3.Cursor, types: dict[str, str]) -> Iterator[dict[str, object]]:
    """Yield rows with what SQLite spells otherwise than PostgreSQL: booleans and times."""
    for row in cursor:
        values = dict(zip(types, row, strict=True))
        for name, value in values.items():
            if value is not None and types[name] == "boolean":
                values[name] = bool(value)
            if value is not None and types[name] == "timestamp with time zone":
                values[name] = f"{value}+00"  # times are UTC
        yield values
