"""A benchmark from its submission to its report: real trainers on a small synthetic pair."""

import json
import re
from pathlib import Path
from shutil import copyfile
from typing import get_args
from unittest.mock import ANY
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cli.synthetic.domain import CLASSES, write_domain
from app.datasets.registrar import Registrar
from app.datasets.registration import folder_files
from app.datasets.schemas import DatasetCreate
from app.jobs import service as jobs
from app.jobs.request_schemas import BenchmarkRequest
from app.jobs.routes import ReportFile
from app.jobs.transitions import give_up_dependents
from app.tables import Job, JobKind, JobState, TrainedModel
from models.data.splits import Folds
from models.table1.cells import Cell
from models.table1.methods import ROWS
from models.table1.results import BenchmarkReport
from tests.worker.conftest import Service
from tests.worker.runs import result_of, run, run_here, sqlite_only
from worker.report.__main__ import merged
from worker.report.numbers import percent

pytestmark = pytest.mark.training


@pytest.fixture
def pair(service: Service) -> dict[str, UUID]:
    """Twelve small sections of each domain, all with masks."""
    root = service.settings.data_folder.parent / "roots"
    settings = service.settings.model_copy(update={"data_roots": (root,)})
    ids = {}
    for name, pixel_nm in (("source", 4.0), ("target", 5.0)):
        write_domain(root / name, name, num_sections=12, size_px=96, seed=1)  # type: ignore[arg-type]
        request = DatasetCreate(name=name, class_names=list(CLASSES), pixel_size_nm=pixel_nm)
        files = folder_files(settings, name)
        registrar = Registrar(service.database, service.storage, settings)
        ids[name] = registrar.register(request, files).dataset_id
    return ids


def report_of(service: Service, job_id: UUID) -> BenchmarkReport:
    with service.database.reading() as session:
        path = jobs.report(session, service.storage, job_id, "report.json")
    return BenchmarkReport.model_validate_json(path.read_bytes())


def keep_cells(service: Service, job_id: UUID, out: Path) -> None:
    """Write what `stylefilter benchmark` writes as parts end."""
    (out / "cells").mkdir(parents=True)
    with service.database.reading() as session:
        parts = session.scalars(select(Job.id).where(Job.parent_id == job_id)).all()
        paths = [jobs.cell(session, service.storage, part) for part in parts]
    for path in paths:
        name = Cell.model_validate_json(path.read_bytes()).name
        copyfile(path, out / "cells" / f"{name}.json")


def check_choices(report: BenchmarkReport, trained: list[str]) -> None:
    """The target's masks have chosen, so that is what the rule `oracle` gives."""
    choices = {row.row: row.choices for row in report.rows if row.choices}
    assert sorted(choices) == sorted(trained)
    for row in report.rows:
        if row.choices:
            assert list(row.choices) == ["labels", "last", "oracle"]
            assert row.choices["oracle"] == row.dice["mean"]


@sqlite_only
def test_rows_of_a_fold_become_a_report(service: Service, pair: dict[str, UUID]) -> None:
    body = {"preset": "smoke", "num_folds": 1, "tile_px": 32, "label_tiles_px": [32]}
    rows = ["source-only", "cut", "stylefilter-no-cut", "stylefilter", "filter-at-test"]
    job_id = service.submit(BenchmarkRequest.model_validate(pair | body | {"rows": rows}))
    run_here(service, job_id)
    job = service.job(job_id)
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    report = report_of(service, job_id)
    assert [row.row for row in report.rows] == [*rows[:2], *rows[2:4], "unfiltered", rows[4]]
    notes = result_of(job).notes
    assert "smoke" in notes[0]
    starts = [f"{row.title}: Mean DICE is {percent(row.dice['mean'].mean)}%" for row in report.rows]
    assert all(note.startswith(start) for note, start in zip(notes[1:], starts, strict=True))
    assert report.failed == ()
    # The table is made of the confusion matrices that each job's own result pools.
    with service.database.reading() as session:
        parts = session.scalars(select(Job).where(Job.parent_id == job_id)).all()
    measured = {
        evaluation["method"]: evaluation["mean_dice"]
        for part in parts
        for evaluation in (part.result or {})["evaluations"]
    }
    told = {row.title: row.dice["mean"].mean for row in report.rows}
    assert told == pytest.approx(measured)
    # Stages that rows share were trained once.
    with service.database.reading() as session:
        kinds = sorted(model.kind for model in session.scalars(select(TrainedModel)))
    assert kinds == ["baseline", "segmenter", "style", "stylefilter"]
    assert [(stage.stage, stage.seconds > 0) for stage in report.shared] == [
        ("pretrain", True),
        ("style", True),
    ]
    # A row's memory is the most of any job that trained for it, those it shares among them.
    held = {part.kind: part.result["peak_memory_bytes"] for part in parts if part.result}
    memory = {row.row: row.peak_memory_bytes for row in report.rows}
    assert memory["source-only"] >= held[JobKind.PRETRAIN]
    assert memory["cut"] >= max(held[JobKind.PRETRAIN], held[JobKind.TRAIN_STYLE])
    assert sorted(found.row for found in report.results) == sorted(row.row for row in report.rows)
    assert all(found.confusions for found in report.results)
    labels = {row.row: row.num_labels for row in report.rows}
    # Four of twelve sections train or test, of nine tiles each.
    assert labels["filter-at-test"] == labels["stylefilter"] + 9 * len(report.results[0].sections)
    assert labels["source-only"] == labels["unfiltered"] == 0 < labels["stylefilter"]
    assert {row.row: row.selected for row in report.rows}["stylefilter"] == ("target_val",)
    check_choices(report, trained=[*rows[2:], "unfiltered"])
    (value,) = report.label_values
    assert (value.tile_px, value.num_labels) == (32, labels["stylefilter"])
    assert {curve.row for curve in report.curves} == {"stylefilter", "unfiltered"}
    assert report.styles == ()  # the last generator was kept
    with service.database.reading() as session:
        folder = jobs.report(session, service.storage, job_id, "report.html").parent
    text = (folder / "report.md").read_text()
    assert "StyleFilter" in text
    shown = re.findall(r"\]\((.+?)\)", text)
    assert "charts/mean.svg" in shown
    with service.database.reading() as session:
        assert all(jobs.report(session, service.storage, job_id, name) for name in shown)
    assert set(shown) < set(get_args(get_args(ReportFile)[0]))
    with Image.open(folder / "figure.png") as figure:
        assert figure.format == "PNG"
    folds = Folds.model_validate_json((folder / "folds.json").read_bytes())
    assert len(folds.target.folds) == 1


@sqlite_only
def test_a_row_that_the_labels_choose(service: Service, pair: dict[str, UUID]) -> None:
    body = {
        "preset": "smoke",
        "config": {"choice": {"max_trained": 1, "target_statistics": False}},
        "num_folds": 1,
        "tile_px": 24,
        "rows": ["source-only", "chosen"],
    }
    job_id = service.submit(BenchmarkRequest.model_validate(pair | body))
    run_here(service, job_id)
    report = report_of(service, job_id)
    dice = {row.row: row.dice["mean"].mean for row in report.rows}
    assert list(dice) == ["source-only", "chosen"]
    with service.database.reading() as session:
        parts = session.scalars(select(Job).where(Job.parent_id == job_id, Job.kind == "method"))
        (verdict,) = (found for part in parts if (found := (part.result or {})["verdict"]))
    (judged,) = report.verdicts
    assert judged.verdict.model_dump(mode="json") == verdict
    told = {c["name"]: c["mean_dice"] for c in verdict["candidates"]}
    assert told["source-only"] == pytest.approx(dice["source-only"])
    assert told[verdict["use"]] == pytest.approx(dice["chosen"])
    check = report.verdict_check
    assert check is not None
    counted = check.rightly + check.wrongly + check.left_open + check.small
    assert counted == len(verdict["candidates"]) - 1
    (model,) = (model for model in service.models() if model.kind == "chosen")
    folder = service.storage.model(model.path)
    view = json.loads((folder / "config.json").read_text())["view"]
    if verdict["use"] == "source-only":
        assert (view["name"], dice["chosen"]) == ("raw", dice["source-only"])
    else:
        assert verdict["use"].startswith(view["name"])
    assert (verdict["outcome"] == "better") == (verdict["use"] != "source-only")


@sqlite_only
def test_seeds_share_no_training_and_are_told_apart(
    service: Service, pair: dict[str, UUID]
) -> None:
    body = {"preset": "smoke", "num_folds": 1, "rows": ["source-only"]}
    both = service.submit(BenchmarkRequest.model_validate(pair | body | {"seeds": [0, 1]}))
    run_here(service, both)
    report = report_of(service, both)
    (row,) = report.rows
    assert (report.seeds, row.folds, row.seeds) == ((0, 1), (0, 0), (0, 1))
    score = row.dice["mean"]
    assert score.seed_range == pytest.approx(abs(np.subtract(*score.per_fold)))
    assert score.seed_range is not None
    assert score.seed_range > 0
    assert [(stage.seed, stage.rows) for stage in report.shared] == [
        (0, ("source-only",)),
        (1, ("source-only",)),
    ]
    # A seed alone gives what it gave beside the other, and both make the same table.
    outs = []
    for seed in (1, 0):
        request = BenchmarkRequest.model_validate(pair | body | {"seeds": [seed]})
        alone = service.submit(request)
        run_here(service, alone)
        assert report_of(service, alone).rows[0].dice["mean"].per_fold == (score.per_fold[seed],)
        outs.append(service.settings.data_folder.parent / f"out{seed}")
        keep_cells(service, alone, outs[-1])
    assert sorted(path.name for path in (outs[0] / "cells").iterdir()) == [
        "fold-1-seed-1-pretrain.json",
        "fold-1-seed-1-source-only.json",
    ]
    merged(outs, outs[0] / "both")
    table = BenchmarkReport.model_validate_json((outs[0] / "both" / "report.json").read_bytes())
    assert (table.rows[0].dice, table.seeds) == (row.dice, report.seeds)
    assert table.results[0].confusions == report.results[0].confusions
    assert [(s.seed, s.rows) for s in table.shared] == [(s.seed, s.rows) for s in report.shared]
    assert (outs[0] / "both" / "folds.json").is_file()
    merged([outs[0], outs[0]], outs[0] / "once")  # what is there twice counts once
    text = (outs[1] / "cells" / "fold-1-seed-0-source-only.json").read_text()
    (outs[1] / "cells" / "fold-1-seed-0-source-only.json").write_text(
        text.replace('"confusions": [', '"confusions": [[[7]], ', 1).replace(
            '"seed": 0', '"seed": 1'
        )
    )
    with pytest.raises(ValueError, match="twice"):
        merged(outs, outs[0] / "third")


@sqlite_only
def test_a_row_with_few_labels_with_none_with_points_and_with_a_mask(
    service: Service, pair: dict[str, UUID]
) -> None:
    body = {"preset": "smoke", "num_folds": 1, "tile_px": 24, "rows": ["source-only", "rounds"]}
    orders = ["random", "next"]
    budgets = {"num_labels": [5, 0], "num_masks": [1], "num_points": [3], "label_orders": orders}
    job_id = service.submit(BenchmarkRequest.model_validate(pair | body | budgets))
    run_here(service, job_id)
    report = report_of(service, job_id)
    assert report.failed == ()
    assert [row.row for row in report.rows] == ["source-only", "rounds"]
    (table,) = (row.num_labels for row in report.rows if row.row == "rounds")
    assert table > 5
    values = report.annotation_values
    used = [(v.num_labels, v.num_masks, v.order) for v in values if not v.num_points]
    few = [(5, 0, order) for order in orders]
    assert used == [(0, 0, "random"), *few, (table, 0, "random"), (0, 1, "random")]
    (points,) = (v for v in values if v.num_points)
    assert (points.num_points, points.num_masks) == (3, 0)
    assert 1 <= points.num_labels <= 3
    # Each was a training of its own.
    baselines = [model.fingerprint for model in service.models() if model.kind == "baseline"]
    assert len(set(baselines)) == 6


@sqlite_only
def test_a_failed_part_is_told_of_and_the_others_stay(
    service: Service, pair: dict[str, UUID]
) -> None:
    body = {"preset": "smoke", "num_folds": 1, "rows": ["source-only", "y-net", "target-only"]}
    job_id = service.submit(BenchmarkRequest.model_validate(pair | body))
    with service.database.session() as session:
        for part in session.scalars(select(Job).where(Job.parent_id == job_id)):
            if (part.plan or {}).get("method") == "y-net":
                jobs.cancel(session, part.id)
    run_here(service, job_id)
    report = report_of(service, job_id)
    assert [row.row for row in report.rows] == ["source-only", "target-only"]
    assert [(found.row, found.reason) for found in report.failed] == [("y-net", ANY)]
    (target_only,) = [row for row in report.rows if row.row == "target-only"]
    assert target_only.num_masks > 0
    with service.database.reading() as session:
        on_target = session.scalars(
            select(TrainedModel).where(TrainedModel.source_id == pair["target"])
        ).all()
        models = session.scalars(select(TrainedModel)).all()
    (target_only_model,) = on_target
    # It was seen at the source's pixel size, 4 nm, not at its own, 5.
    assert target_only_model.kind == "segmenter"
    assert target_only_model.working_nm == 4.0
    assert target_only_model.config["pixel_size_factor"] == 1.0
    # Nothing that no row needs was trained: no style.
    assert [model.kind for model in models] == ["segmenter"] * 2


@sqlite_only
def test_a_shared_stage_that_failed_says_why_its_rows_did(
    service: Service, pair: dict[str, UUID]
) -> None:
    body = {"preset": "smoke", "num_folds": 1, "rows": ["source-only", "cut", "target-only"]}
    job_id = service.submit(BenchmarkRequest.model_validate(pair | body))
    with service.database.session() as session:
        for part in session.scalars(select(Job).where(Job.parent_id == job_id)):
            if part.kind == JobKind.TRAIN_STYLE:
                jobs.cancel(session, part.id)
        give_up_dependents(session)
        session.commit()
    run_here(service, job_id)
    report = report_of(service, job_id)
    assert [row.row for row in report.rows] == ["target-only"]
    assert [found.row for found in report.failed] == ["source-only", "cut"]
    assert all("stage style" in found.reason for found in report.failed)
    assert [stage.stage for stage in report.shared] == ["pretrain"]


@sqlite_only
def test_a_shared_stage_that_was_mended_alone_is_not_blamed(
    service: Service, pair: dict[str, UUID]
) -> None:
    """Style waited in vain for a pre-training that has succeeded since."""
    config = {"style": {"select_on": "target_val"}}
    rows = ["source-only", "cut", "y-net", "target-only"]
    body = {"preset": "smoke", "num_folds": 1, "tile_px": 32, "rows": rows, "config": config}
    job_id = service.submit(BenchmarkRequest.model_validate(pair | body))

    def pretrain(session: Session) -> Job:
        query = select(Job).where(Job.parent_id == job_id, Job.kind == JobKind.PRETRAIN)
        return session.scalars(query).one()

    with service.database.session() as session:
        jobs.cancel(session, pretrain(session).id)
        while give_up_dependents(session):
            pass
        pretrain(session).state = JobState.SUCCEEDED
        session.commit()
    run_here(service, job_id)
    reasons = {found.row: found.reason for found in report_of(service, job_id).failed}
    assert reasons.keys() == {"source-only", "cut", "y-net"}
    for row in ("source-only", "cut"):
        assert "stage style" in reasons[row]
        assert reasons["y-net"] in reasons[row]
    assert "waited for" in reasons["y-net"]
    assert "stage" not in reasons["y-net"]


@sqlite_only
def test_a_target_with_other_names_and_ids_is_scored_alike(
    service: Service, pair: dict[str, UUID]
) -> None:
    root = service.settings.data_folder.parent / "roots"
    settings = service.settings.model_copy(update={"data_roots": (root,)})
    names = [f"my {name}" for name in CLASSES]
    request = DatasetCreate(
        name="target",
        class_names=names[::-1],
        mask_values=dict(enumerate(names)) | {255: "ignore"},
        pixel_size_nm=5.0,
    )
    registrar = Registrar(service.database, service.storage, settings)
    other = registrar.register(request, folder_files(settings, "target")).dataset_id
    body = {"preset": "smoke", "num_folds": 1, "tile_px": 32, "rows": ["source-only"]}
    meanings = dict(zip(names, CLASSES, strict=True))
    reports = []
    for change in ({}, {"target": other, "target_classes": meanings}):
        job_id = service.submit(BenchmarkRequest.model_validate(pair | body | change))
        run_here(service, job_id)
        reports.append(report_of(service, job_id))
    (plain,), (renamed,) = (report.rows for report in reports)
    assert reports[1].class_names == CLASSES
    assert renamed.dice == plain.dice


@pytest.mark.processes
@pytest.mark.slow
@sqlite_only
def test_every_row_can_be_measured_and_measured_again(
    service: Service, pair: dict[str, UUID]
) -> None:
    config = {"style": {"select_on": "target_val", "validate_every_steps": 2}}
    body = {"preset": "smoke", "num_folds": 1, "tile_px": 24, "config": config}
    request = BenchmarkRequest.model_validate(pair | body)
    first = service.submit(request)
    run(service, first)
    report = report_of(service, first)
    assert report.failed == ()
    assert [row.row for row in report.rows] == list(ROWS)
    (choice,) = report.styles
    assert [score.step for score in choice.scores] == [2, 4]
    assert all(
        score.dice is not None and score.label_probability is not None for score in choice.scores
    )
    # Once more nothing is trained, and the same is measured.
    some = {"y-net": report.rows[2], "stylefilter": report.rows[7]}
    second = service.submit(request.model_copy(update={"rows": list(some)}))
    run(service, second)
    again = report_of(service, second)
    assert {row.row: row.dice for row in again.rows} == {n: row.dice for n, row in some.items()}
    # Of the jobs that trained it.
    assert {row.row: row.seconds for row in again.rows} == pytest.approx(
        {n: row.seconds for n, row in some.items()}, abs=0.5
    )
    assert all(row.peak_memory_bytes >= some[row.row].peak_memory_bytes for row in again.rows)
    assert set(again.curves) == {curve for curve in report.curves if curve.row in some}
    with service.database.reading() as session:
        made = session.scalars(select(Job.id).where(Job.parent_id == second)).all()
        models = session.scalars(select(TrainedModel).where(TrainedModel.job_id.in_(made))).all()
    assert models == []
