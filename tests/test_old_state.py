"""The state that commit 313dbdf left, before any migration: whole, and the same on both engines."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, MetaData, func, insert, select
from sqlalchemy.schema import Table

from app.database import Database
from app.settings import Settings
from models.config.versions import CONFIG_VERSION
from tests.old_state import REVISION, expected, old_configs, open_state

EXPECTED = expected()


@pytest.fixture
def engine(old_state: Settings) -> Iterator[Engine]:
    with closing(Database(old_state.database)) as database:
        yield database.engine


@pytest.fixture
def tables(engine: Engine) -> dict[str, Table]:
    """The tables as the database itself describes them."""
    metadata = MetaData()
    metadata.reflect(engine)
    return dict(metadata.tables)


def test_all_rows_are_there_at_the_old_revision(engine: Engine, tables: dict[str, Table]) -> None:
    with engine.connect() as connection:
        counts = {
            name: connection.scalar(select(func.count()).select_from(table))
            for name, table in tables.items()
        }
        revision = connection.scalar(select(tables["alembic_version"].c.version_num))
    assert counts == EXPECTED.rows
    assert 0 not in counts.values()  # a table without rows would test no migration
    assert revision == REVISION


def test_each_job_has_the_state_it_is_named_after(engine: Engine, tables: dict[str, Table]) -> None:
    jobs = tables["jobs"]
    with engine.connect() as connection:
        rows = connection.execute(select(jobs.c.id, jobs.c.state, jobs.c.losses)).all()
    states = {UUID(str(job_id)): (state, losses) for job_id, state, losses in rows}
    assert {name: states[job_id] for name, job_id in EXPECTED.jobs.items()} == {
        "adapt": ("succeeded", 0),
        "evaluate": ("succeeded", 0),
        "benchmark": ("succeeded", 0),
        "failed": ("failed", 0),
        "cancelled": ("cancelled", 0),
        "paused": ("paused", 0),
        "interrupted": ("interrupted", 1),
        "killed": ("running", 0),
    }


def test_configs_are_objects_and_one_is_out_of_range(
    engine: Engine, tables: dict[str, Table]
) -> None:
    models = tables["trained_models"]
    with engine.connect() as connection:
        rows = connection.execute(select(models.c.id, models.c.config)).all()
    factors = {UUID(str(model_id)): config["pixel_size_factor"] for model_id, config in rows}
    assert factors.pop(EXPECTED.models["target-only"]) == 0.2
    assert set(factors.values()) == {1.0}
    assert EXPECTED.answers["/models"] == 500


@pytest.mark.services
@pytest.mark.parametrize("old_state", ["postgresql"], indirect=True)
def test_both_engines_hold_the_same(tmp_path: Path, old_state: Settings) -> None:
    """Times are compared to the microsecond, numbers to the last bit."""
    assert _everything(old_state) == _everything(open_state(tmp_path / "again"))


def test_events_count_on_from_those_that_are_there(
    engine: Engine, tables: dict[str, Table]
) -> None:
    events = tables["job_events"]
    with engine.begin() as connection:
        last = connection.execute(select(events).order_by(events.c.id.desc()).limit(1)).one()
        more = {name: value for name, value in last._mapping.items() if name != "id"}
        connection.execute(insert(events), more)
        newest = connection.scalar(select(func.max(events.c.id)))
    assert newest == last.id + 1


def test_weights_of_all_models_and_three_checkpoints_are_there(
    old_state: Settings, engine: Engine, tables: dict[str, Table]
) -> None:
    with engine.connect() as connection:
        paths = connection.scalars(select(tables["trained_models"].c.path)).all()
    names = ("weights.safetensors", "config.json", "metrics.json")
    assert all((old_state.data_folder / path / name).is_file() for path in paths for name in names)
    checkpoints = {
        (UUID(path.parent.parent.name), path.name)
        for path in old_state.data_folder.glob("jobs/*/checkpoints/*")
    }
    assert checkpoints == {
        (EXPECTED.jobs["paused"], "style-1.pt"),
        (EXPECTED.jobs["interrupted"], "pretrain-1.pt"),
        (EXPECTED.jobs["killed"], "adapt-1.pt"),
    }


def test_a_config_of_every_earlier_schema_is_kept() -> None:
    configs = old_configs()
    schemas = {name.split("/")[0]: _fields(config) for name, config in configs.items()}
    assert len(configs) == 3 * len(schemas)
    assert len({*schemas.values()}) == len(schemas) == CONFIG_VERSION
    assert all(_fields(config) == schemas[name.split("/")[0]] for name, config in configs.items())


def _everything(settings: Settings) -> dict[str, list[str]]:
    """All rows of all tables in one spelling for both engines."""
    metadata = MetaData()
    with closing(Database(settings.database)) as database, database.engine.connect() as connection:
        metadata.reflect(connection)
        return {
            name: sorted(
                json.dumps([_spelled(value) for value in row], sort_keys=True)
                for row in connection.execute(select(*sorted(table.c, key=lambda c: c.name)))
            )
            for name, table in metadata.tables.items()
        }


def _spelled(value: Any) -> Any:
    if isinstance(value, UUID):
        return value.hex
    if hasattr(value, "isoformat"):
        return value.replace(tzinfo=None).isoformat()
    return value


def _fields(config: dict[str, Any], prefix: str = "") -> frozenset[str]:
    """Names of all fields, those of inner objects behind a dot."""
    found: set[str] = set()
    for name, value in config.items():
        inner = _fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name}
        found |= inner
    return frozenset(found)
