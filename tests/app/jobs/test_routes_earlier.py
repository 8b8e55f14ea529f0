"""The report of a benchmark that an earlier version measured is served as that version wrote it."""

from contextlib import closing

import pytest

from app.database import Database
from app.settings import Settings
from models.data.splits import Folds
from tests.app.conftest import Serve
from tests.old_state import expected


@pytest.mark.parametrize("old_state", ["sqlite"], indirect=True)
def test_an_earlier_report_is_served(old_state: Settings, serve: Serve) -> None:
    with closing(Database(old_state.database)) as database:
        database.migrate()
    path = f"/jobs/{expected().jobs['benchmark']}/report"
    (folder,) = old_state.data_folder.glob("jobs/*/1/report")
    api = serve(old_state)
    assert api.get(f"{path}/report.json").content == (folder / "report.json").read_bytes()
    folds = api.get(f"{path}/folds.json")
    assert folds.content == (folder / "splits.json").read_bytes()
    assert len(Folds.model_validate_json(folds.content).target.folds) == 1
    assert api.get(f"{path}/figure.png").status_code == 404  # the state was kept without it
