"""Migration 0015: a kind of models for what the target's labels chose."""

from contextlib import closing
from uuid import UUID

from alembic import command

from app.database import Database
from app.settings import Settings
from app.tables import ModelKind, TrainedModel
from tests.app.records import add_job, add_model
from tests.old_state import expected


def test_chosen_models_become_baselines_for_the_version_before(old_state: Settings) -> None:
    with closing(Database(old_state.database)) as database:
        database.migrate()
        source = str(expected().datasets["source"])
        job = add_job(database, source)
        model = add_model(database, job, source, kind=ModelKind.CHOSEN)

        def kinds() -> dict[UUID, str]:
            with database.reading() as session:
                return {row.id: row.kind for row in session.query(TrainedModel)}

        before = kinds()
        assert before[model] == "chosen"
        command.downgrade(database.alembic_config(), "0014")
        assert kinds() == before | {model: "baseline"}
        database.migrate()
        assert kinds() == before | {model: "baseline"}
