"""Migration 0006: the working pixel size of every model that an earlier version registered."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import Uuid, column, select, table, update

from app.columns import Json
from app.database import Database
from app.settings import Settings
from app.tables import TrainedModel
from tests.old_state import REVISION, expected

_MODELS = table("trained_models", column("id", Uuid()), column("config", Json))
_JOBS = table("jobs", column("id", Uuid()), column("config", Json))


@pytest.fixture
def old(old_state: Settings) -> Iterator[Database]:
    with closing(Database(old_state.database)) as database:
        yield database


def test_each_model_has_the_pixel_size_that_stands_beside_its_weights(
    old: Database, old_state: Settings
) -> None:
    old.migrate()
    with old.reading() as session:
        models = session.scalars(select(TrainedModel)).all()
    beside = {
        model.id: json.loads((old_state.data_folder / model.path / "config.json").read_text())
        for model in models
    }
    assert {model.id: model.working_nm for model in models} == {
        model_id: pytest.approx(meta["working_nm"]) for model_id, meta in beside.items()
    }
    assert {model.id: model.config for model in models} == {
        model_id: meta["config"] for model_id, meta in beside.items()
    }


def test_it_goes_back_and_forth(old: Database) -> None:
    before = _configs(old)
    old.migrate()
    sizes = _sizes(old)
    command.downgrade(old.alembic_config(), REVISION)
    assert _configs(old) == before
    old.migrate()
    assert _sizes(old) == {model: pytest.approx(nm) for model, nm in sizes.items()}


def test_rows_with_damaged_configs_pass(old: Database) -> None:
    """A model whose config does not say otherwise is taken to work at its source's pixel size."""
    models = expected().models
    with old.session() as session:
        for model, config in (("style", None), ("segmenter", []), ("target-only", {})):
            query = update(_MODELS).where(_MODELS.c.id == models[model])
            session.execute(query.values(config=config))
        session.execute(update(_JOBS).values(config="damaged"))
        session.commit()
    command.upgrade(old.alembic_config(), "head")
    sizes = _sizes(old)
    assert [sizes[models[name]] for name in ("style", "segmenter")] == [4.0, 4.0]
    assert sizes[models["target-only"]] == 20.0
    command.downgrade(old.alembic_config(), REVISION)


def _configs(database: Database) -> dict[UUID, Any]:
    with database.reading() as session:
        return {row.id: row.config for row in session.execute(select(_MODELS))}


def _sizes(database: Database) -> dict[UUID, float]:
    with database.reading() as session:
        return {m.id: m.working_nm for m in session.scalars(select(TrainedModel))}
