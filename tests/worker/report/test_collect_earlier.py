"""What jobs of commit 313dbdf left makes the report that the commit made."""

import json
from contextlib import closing

import pytest

from app.database import Database
from app.settings import Settings
from app.storage import Storage
from app.tables import Job
from models.table1.results import BenchmarkReport
from tests.old_state import expected
from worker.report.collect import cells_of, report_of
from worker.report.parts import Parts


@pytest.mark.parametrize("old_state", ["sqlite"], indirect=True)
def test_numbers_of_a_benchmark_of_an_earlier_version(old_state: Settings) -> None:
    benchmark_id = expected().jobs["benchmark"]
    with closing(Database(old_state.database)) as database:
        database.migrate()
        storage = Storage(old_state.data_folder)
        with database.reading() as session:
            benchmark = session.get_one(Job, benchmark_id)
            report = report_of(cells_of(Parts(session, storage, benchmark)))
            path = storage.attempt(benchmark_id, benchmark.attempt) / "report" / "report.json"
    assert _numbers(report) == json.loads(path.read_bytes(), object_pairs_hook=_as_now)


def _numbers(report: BenchmarkReport) -> dict[str, object]:
    """Return what does not depend on who made the report."""
    told: dict[str, object] = json.loads(
        report.model_dump_json(exclude={"versions", "config"}), object_pairs_hook=_as_then
    )
    return told


def _as_then(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Leave out what an earlier report does not tell: its only seed, and what came later."""
    new = {"seed", "seeds", "seed_std", "seed_range", "verdicts", "verdict_check"}
    new |= {"budget", "annotation_values", "choices"}
    return {name: value for name, value in pairs if name not in new}


def _as_now(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Name the fields of an earlier report as they are named now; its sentences are left out."""
    names = {"split": "fold", "splits": "folds", "per_split": "per_fold", "cells": "results"}
    left_out = {"words", "versions", "config"}
    return {names.get(name, name): value for name, value in pairs if name not in left_out}
