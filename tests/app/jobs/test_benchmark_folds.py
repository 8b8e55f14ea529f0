"""A benchmark over HTTP: which jobs it makes, how they hang together, and what is refused."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from app.database import Database
from app.jobs.transitions import Failure, claim, fail, give_up_dependents, succeed
from app.tables import Job, JobDependency
from models.table1.methods import ROWS
from models.table1.plan import BenchmarkPart, BenchmarkPlan
from tests.app.files import grey, mask, png, problem, registered, upload

NAMES = [f"s{n:02}" for n in range(12)]


@pytest.fixture
def pair(api: httpx.Client) -> dict[str, str]:
    """Two datasets of twelve sections with masks."""
    masks = {f"{name}.png": png(mask()) for name in NAMES}
    return {
        which: str(
            registered(
                upload(api, {f"{n}.png": png(grey(i + shift)) for i, n in enumerate(NAMES)}, masks)
            )["id"]
        )
        for which, shift in (("source", 1), ("target", 101))
    }


def submitted(api: httpx.Client, pair: dict[str, str], **body: Any) -> dict[str, Any]:
    answer = api.post(
        "/jobs/benchmark", json=pair | {"preset": "smoke", "num_folds": 1, "tile_px": 16} | body
    )
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def parts(api: httpx.Client, job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The benchmark's jobs by what they are."""
    items = api.get("/jobs", params={"parent": job["id"]}).json()["items"]
    return {
        item["part"].removesuffix(", tiles of 16 px")
        if item["kind"] == "method"
        else item["kind"]: item
        for item in items
    }


def needs(database: Database, job_id: str) -> set[tuple[str, bool]]:
    with database.reading() as session:
        query = select(JobDependency).where(JobDependency.job_id == UUID(job_id))
        return {(str(row.needs_id), row.success) for row in session.scalars(query)}


def test_rows_share_their_stages(
    api: httpx.Client, database: Database, pair: dict[str, str]
) -> None:
    with_style = {
        "source-only", "paul-no-advl-cut", "stylefilter", "unfiltered", "adabn-cut",
    }  # fmt: skip
    without = {
        "y-net", "paul", "paul-no-advl", "filter-without-style", "stylefilter-histogram",
        "stylefilter-fourier", "adabn",
    }  # fmt: skip
    methods = {*with_style, *without, "target-only"}
    rows = [name for name, row in ROWS.items() if row.method.name in methods]
    job = submitted(api, pair, rows=rows)
    assert (job["kind"], job["state"], job["stage"]) == ("benchmark", "queued", None)
    made = parts(api, job)
    assert job["parts"] == {"ended": 0, "total": len(made)} == {"ended": 0, "total": 15}
    assert all(part["parts"] is None for part in made.values())
    cancelled = api.post(f"/jobs/{next(iter(made.values()))['id']}/cancel")
    assert cancelled.status_code == 202
    assert api.get(f"/jobs/{job['id']}").json()["parts"] == {"ended": 1, "total": 15}
    pretrain, style = made.pop("pretrain")["id"], made.pop("train-style")["id"]
    assert needs(database, pretrain) == needs(database, style) == set()
    both = {(pretrain, True), (style, True)}
    for method, of_others in (
        *((name, both) for name in with_style),
        *((name, {(pretrain, True)}) for name in without),
        ("target-only", set()),
    ):
        assert needs(database, made.pop(f"fold 1: {method}")["id"]) == of_others
    assert made == {}
    with database.reading() as session:
        jobs = session.scalars(select(Job).where(Job.parent_id == UUID(job["id"]))).all()
        plans = [BenchmarkPart.model_validate(row.plan) for row in jobs]
    assert sorted(row for plan in plans for row in plan.rows) == sorted(rows)
    assert {uid for uid, success in needs(database, job["id"])} == {str(row.id) for row in jobs}
    assert not any(success for _, success in needs(database, job["id"]))


def test_all_rows_are_measured_unless_some_are_asked_for(
    api: httpx.Client, database: Database, pair: dict[str, str]
) -> None:
    job = submitted(api, pair)
    with database.reading() as session:
        made = session.scalars(select(Job).where(Job.parent_id == UUID(job["id"]))).all()
        plans = [BenchmarkPart.model_validate(row.plan) for row in made]
    assert sorted(row for plan in plans for row in plan.rows) == sorted(ROWS)


def test_a_style_that_the_segmenter_chooses_waits_for_it(
    api: httpx.Client, database: Database, pair: dict[str, str]
) -> None:
    config = {"style": {"select_on": "target_val"}}
    made = parts(api, submitted(api, pair, rows=["cut"], config=config))
    assert set(made) == {"pretrain", "train-style", "fold 1: source-only"}
    assert needs(database, made["train-style"]["id"]) == {(made["pretrain"]["id"], True)}


def test_labels_of_other_tiles_are_cells_of_their_own(
    api: httpx.Client, pair: dict[str, str]
) -> None:
    body = {"rows": ["stylefilter"], "label_tiles_px": [16, 32, 32], "num_folds": 2}
    made = parts(api, submitted(api, pair, **body))
    methods = {name for name in made if name.startswith("fold")}
    assert methods == {
        f"fold {fold}: {method}"
        for fold in (1, 2)
        for method in ("stylefilter", "stylefilter, tiles of 32 px", "unfiltered")
    }


def test_each_seed_has_parts_of_its_own(
    api: httpx.Client, database: Database, pair: dict[str, str]
) -> None:
    job = submitted(api, pair, rows=["source-only", "target-only"], seeds=[3, 1, 3], num_folds=2)
    with database.reading() as session:
        jobs = session.scalars(select(Job).where(Job.parent_id == UUID(job["id"]))).all()
        made = {row.id: (row.kind, BenchmarkPart.model_validate(row.plan), row) for row in jobs}
    by_seed = [(plan.fold, plan.seed, row.config["seed"]) for _, plan, row in made.values()]
    assert sorted(by_seed) == sorted(3 * [(f, s, s) for f in (0, 1) for s in (1, 3)])
    assert job["config"]["seed"] == 3
    for kind, plan, row in made.values():
        if plan.method == "source-only":
            ((needed, _),) = needs(database, str(row.id))
            shared = made[UUID(needed)]
            assert (kind, shared[0]) == ("method", "pretrain")
            assert (shared[1].fold, shared[1].seed) == (plan.fold, plan.seed)


def test_one_seed_is_that_of_the_configuration(api: httpx.Client, pair: dict[str, str]) -> None:
    jobs = [
        submitted(api, pair, rows=["source-only"], **body)
        for body in ({"seeds": [5]}, {"config": {"seed": 5}})
    ]
    assert [set(parts(api, job)) for job in jobs] == 2 * [{"pretrain", "fold 1: source-only"}]
    assert jobs[0]["config"] == jobs[1]["config"]


def test_some_of_the_folds_keep_their_sections_and_numbers(
    api: httpx.Client, database: Database, pair: dict[str, str]
) -> None:
    body = {"rows": ["target-only"], "num_folds": 3}
    whole, some = (submitted(api, pair, **body, **more) for more in ({}, {"only_folds": [3, 2, 3]}))
    plans = []
    for job in (whole, some):
        with database.reading() as session:
            rows = session.scalars(select(Job).where(Job.parent_id == UUID(job["id"]))).all()
            parts_ = [BenchmarkPart.model_validate(row.plan) for row in rows]
        plans.append({part.fold: part.sections for part in parts_})
    assert sorted(plans[0]) == [0, 1, 2]
    assert plans[1] == {fold: plans[0][fold] for fold in (1, 2)}
    answer = api.post(
        "/jobs/benchmark", json=pair | body | {"preset": "smoke", "tile_px": 16, "only_folds": [4]}
    )
    assert problem(answer, 422)["errors"][0]["where"] == "body.only_folds"


def test_only_a_part_that_has_succeeded_has_a_cell(api: httpx.Client, pair: dict[str, str]) -> None:
    job = submitted(api, pair, rows=["target-only"])
    (part,) = parts(api, job).values()
    assert problem(api.get(f"/jobs/{job['id']}/cell"), 404)
    assert problem(api.get(f"/jobs/{part['id']}/cell"), 409)


def test_rows_that_learn_labels_are_measured_with_fewer_labels_and_with_masks(
    api: httpx.Client, pair: dict[str, str]
) -> None:
    body = {"rows": ["source-only", "paul", "rounds"], "label_tiles_px": [17, 1000]}
    budgets = {
        "num_labels": [4, 0, 4],
        "num_masks": [2],
        "num_points": [3],
        "label_orders": ["random", "next"],
    }
    made = parts(api, submitted(api, pair, **body, **budgets))
    # No crop holds a tile of 1000 px; StyleFilter learns from such tiles nevertheless.
    assert {name for name in made if name.startswith("fold")} == {
        *(f"fold 1: {name}" for name in ("source-only", "paul", "rounds", "unfiltered")),
        *(f"fold 1: stylefilter, tiles of {tile_px} px" for tile_px in (17, 1000)),
        "fold 1: rounds, tiles of 17 px",
        *(f"fold 1: rounds, tiles of 16 px, {n}" for n in ("4 labels", "4 next labels")),
        *(f"fold 1: rounds, tiles of 16 px, {n}" for n in ("0 labels", "2 masks", "3 points")),
    }


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"rows": ["paul"], "num_labels": [4]}, "num_labels"),
        ({"rows": ["paul"], "num_masks": [1]}, "num_masks"),
        ({"rows": ["paul"], "num_points": [1]}, "num_points"),
        ({"rows": ["rounds"], "num_masks": [1000]}, "config.rounds.masked_sections"),
    ],
)
def test_annotation_that_no_row_uses_or_no_fold_has_is_refused(
    api: httpx.Client, pair: dict[str, str], body: dict[str, Any], field: str
) -> None:
    asked = pair | {"preset": "smoke", "tile_px": 16, "num_folds": 1} | body
    answer = api.post("/jobs/benchmark", json=asked)
    assert problem(answer, 422)["errors"][0]["where"] == f"body.{field}"


def test_two_places_for_a_seed_are_refused(api: httpx.Client, pair: dict[str, str]) -> None:
    body = pair | {"preset": "smoke", "tile_px": 16, "seeds": [1], "config": {"seed": 1}}
    answer = api.post("/jobs/benchmark", json=body)
    assert "body.seeds" in problem(answer, 422)["detail"]


def test_splits_are_by_blocks_and_can_be_used_again(
    api: httpx.Client, database: Database, pair: dict[str, str]
) -> None:
    job = submitted(api, pair, rows=["source-only"], num_folds=5)
    with database.reading() as session:
        plan = BenchmarkPlan.model_validate(session.get_one(Job, UUID(job["id"])).plan)
    tested = [name for fold in plan.folds for name in fold.target.test]
    assert sorted(tested) == NAMES
    digests = {which: api.get(f"/datasets/{uid}").json()["digest"] for which, uid in pair.items()}
    published = {
        which: {
            "dataset": which,
            "digest": digests[which],
            "folds": [getattr(plan.folds[1], which).model_dump()],
        }
        for which in pair
    }
    again = submitted(api, pair, rows=["source-only"], folds=published)
    with database.reading() as session:
        repeated = BenchmarkPlan.model_validate(session.get_one(Job, UUID(again["id"])).plan)
    assert repeated.folds == plan.folds[1:2]
    published["target"]["digest"] = "0" * 64
    body = pair | {"preset": "smoke", "folds": published}
    refused = problem(api.post("/jobs/benchmark", json=body), 422)
    assert refused["errors"][0]["where"] == "body.folds.target"


def test_its_folds_are_its_own_whatever_was_registered(api: httpx.Client) -> None:
    masks = {f"{name}.png": png(mask()) for name in NAMES}
    ids, lists = {}, {"train": NAMES[:8], "val": [NAMES[8]], "test": NAMES[9:]}
    for which, shift in (("source", 1), ("target", 101)):
        images = {f"{n}.png": png(grey(i + shift)) for i, n in enumerate(NAMES)}
        report = registered(upload(api, images, masks, splits={"test": NAMES}))
        ids[which] = (str(report["id"]), report["digest"])
    pair = {which: uid for which, (uid, _) in ids.items()}
    folds = {
        which: {"dataset": which, "digest": digest, "folds": [lists]}
        for which, (_, digest) in ids.items()
    }
    job = submitted(api, pair, rows=["source-only"], folds=folds)
    assert job["state"] == "queued"
    refused = problem(api.post("/jobs/adapt", json=pair | {"preset": "smoke"}), 422)
    assert "train" in refused["errors"][0]["message"]


def test_the_benchmark_waits_for_all_and_loses_none_to_a_failure(
    api: httpx.Client, database: Database, pair: dict[str, str]
) -> None:
    job = submitted(api, pair, rows=["source-only", "target-only"])
    first = claim(database, "here", 60)
    assert first is not None
    with database.session() as session:
        assert session.get_one(Job, first.job_id).kind == "pretrain"
        fail(session, first, Failure("gpu_oom", "too large"))
        assert len(give_up_dependents(session)) == 1  # source-only; the table is not given up
        session.commit()
    second = claim(database, "here", 60)
    assert second is not None
    assert claim(database, "there", 60) is None  # the table still waits
    assert api.get(f"/jobs/{job['id']}").json()["parts"]["ended"] == 2
    with database.session() as session:
        assert succeed(session, second, {})
        session.commit()
    last = claim(database, "here", 60)
    assert last is not None
    assert str(last.job_id) == job["id"]


def test_a_retry_is_one_of_all_that_failed(
    api: httpx.Client, database: Database, pair: dict[str, str]
) -> None:
    job = submitted(api, pair, rows=["source-only"])
    for _ in range(2):
        lease = claim(database, "here", 60)
        assert lease is not None
        with database.session() as session:
            fail(session, lease, Failure("gpu_oom", "too large"))
            give_up_dependents(session)
            session.commit()
    assert api.get(f"/jobs/{job['id']}").json()["state"] == "failed"
    assert {item["state"] for item in parts(api, job).values()} == {"failed"}
    assert api.post(f"/jobs/{job['id']}/retry").json()["state"] == "queued"
    assert {item["state"] for item in parts(api, job).values()} == {"queued"}
    with database.session() as session:
        assert give_up_dependents(session) == []
    lease = claim(database, "here", 60)
    assert lease is not None
    assert str(lease.job_id) == parts(api, job)["pretrain"]["id"]


def test_a_benchmark_is_stopped_and_goes_on_with_all_its_parts(
    api: httpx.Client, database: Database, pair: dict[str, str]
) -> None:
    job = submitted(api, pair, rows=["source-only"])
    running = claim(database, "here", 60)
    assert running is not None

    def states() -> list[str]:
        return sorted(item["state"] for item in parts(api, job).values())

    assert api.post(f"/jobs/{job['id']}/pause").json()["state"] == "paused"
    assert states() == ["paused", "pausing"]
    assert api.post(f"/jobs/{job['id']}/resume").json()["state"] == "queued"
    assert states() == ["queued", "running"]
    assert api.patch(f"/jobs/{job['id']}", json={"priority": 7}).json()["priority"] == 7
    assert {item["priority"] for item in parts(api, job).values()} == {7}
    assert api.post(f"/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert states() == ["cancelled", "cancelling"]


@pytest.mark.parametrize(
    ("body", "where", "words"),
    [
        ({"num_folds": 7}, "num_folds", ["source", "7 folds", "12 section"]),
        ({}, "tile_px", ["label", "train", "fold 1"]),
        (
            {"tile_px": 4000, "rows": ["paul"], "config": {"pixel_size_factor": 0.25}},
            "config.adaptation.crop_px",
            ["paul", "crop", "32 nm", "224 nm"],
        ),
        (
            {
                "tile_px": 16,
                "label_tiles_px": [16, 24],
                "config": {"style": {"select_on": "labels"}},
            },
            "label_tiles_px",
            ["24 px", "select_on"],
        ),
        (
            {"tile_px": 16, "config": {"segmenter": {"norm": "group"}}},
            "config.segmenter.norm",
            ["adabn, adabn-cut", "group", "batch"],
        ),
        ({"excluded": ["nucleus"]}, "excluded", ["'nucleus'"]),
        ({"excluded": ["background", "organelle"]}, "excluded", ["excluded"]),
    ],
)
def test_what_cannot_be_measured_is_refused(
    api: httpx.Client,
    database: Database,
    pair: dict[str, str],
    body: dict[str, Any],
    where: str,
    words: list[str],
) -> None:
    answer = api.post("/jobs/benchmark", json=pair | {"preset": "smoke"} | body)
    (error,) = problem(answer, 422)["errors"]
    assert error["where"] == f"body.{where}"
    assert [word for word in words if word not in error["message"]] == []
    with database.reading() as session:
        assert session.scalars(select(Job)).all() == []


def test_the_target_may_have_other_class_names(
    api: httpx.Client, database: Database, pair: dict[str, str]
) -> None:
    files = {f"{n}.png": png(grey(i + 50)) for i, n in enumerate(NAMES)}
    masks = {f"{name}.png": png(mask()) for name in NAMES}
    names = ["rest", "mito"]
    other = pair | {"target": registered(upload(api, files, masks, class_names=names))["id"]}
    body = {"preset": "smoke", "num_folds": 1, "tile_px": 16, "excluded": ["background"]}
    for meanings, where in (
        (None, "body.target"),
        ({"rest": "background", "mito": "ignore"}, "body.target"),
        ({"rest": "background"}, "body.target_classes"),
    ):
        refused = api.post("/jobs/benchmark", json=other | body | {"target_classes": meanings})
        assert [error["where"] for error in problem(refused, 422)["errors"]] == [where]
    meanings = {"rest": "background", "mito": "organelle"}
    job = submitted(api, other, target_classes=meanings, rows=["source-only", "cut"])
    assert len(parts(api, job)) > 1
    with database.reading() as session:
        found = session.scalars(select(Job.target_classes)).all()
    assert found == [meanings] * len(found)


def test_a_report_is_there_when_the_table_is(api: httpx.Client, pair: dict[str, str]) -> None:
    job = submitted(api, pair, rows=["source-only"])
    early = problem(api.get(f"/jobs/{job['id']}/report"), 409)
    assert early["code"] == "conflict"
    assert "queued" in early["detail"]
    chart = problem(api.get(f"/jobs/{job['id']}/report/charts/mean.svg"), 409)
    assert chart["detail"] == early["detail"]
    for name in ("other.svg", "charts/%2e%2e/report.md", "charts"):
        problem(api.get(f"/jobs/{job['id']}/report/{name}"), 422)
    part = next(iter(parts(api, job).values()))
    none = problem(api.get(f"/jobs/{part['id']}/report"), 404)
    assert "benchmark" in none["detail"]


def test_a_dry_run_says_what_its_largest_job_takes(
    api: httpx.Client, database: Database, pair: dict[str, str]
) -> None:
    body = pair | {"preset": "smoke", "tile_px": 16}
    answer = api.post("/jobs/benchmark", params={"dry_run": True}, json=body)
    assert answer.status_code == 200
    assert {stage["stage"] for stage in answer.json()["stages"]} >= {"style", "pretrain", "adapt"}
    with database.reading() as session:
        assert session.scalars(select(Job)).all() == []


def test_names_of_version_0_1_are_understood_but_not_beside_todays(
    api: httpx.Client, database: Database, pair: dict[str, str]
) -> None:
    request = pair | {"preset": "smoke", "rows": ["source-only"], "num_splits": 5}
    job = api.post("/jobs/benchmark", json=request).json()
    with database.reading() as session:
        plan = BenchmarkPlan.model_validate(session.get_one(Job, UUID(job["id"])).plan)
    assert len(plan.folds) == 5
    refused = problem(api.post("/jobs/benchmark", json=request | {"num_folds": 3}), 422)
    assert [each["where"] for each in refused["errors"]] == ["body.num_splits"]
