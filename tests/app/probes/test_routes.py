"""Tiles to label next, sources and benefits, over HTTP and on the command line."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.database import Database, now_plus
from app.storage import Storage
from app.tables import JobKind, ModelKind
from models.choice.looks import FILE, Look, LookMeta, save_looks
from models.choice.probed import LeftOut, ProbedModel, ProbeResult
from tests.app.files import grey, mask, png, problem, registered, upload, wrong
from tests.app.records import add_job, add_model

TILES = 24
CLASSES = ["background", "organelle"]


@pytest.fixture
def target(api: httpx.Client) -> str:
    """Four training sections of 2 x 3 tiles."""
    files = {f"{name}.png": png(grey(seed, 32, 48)) for seed, name in enumerate("abcd")}
    splits = {"train": list("abcd"), "val": [], "test": []}
    return str(registered(upload(api, files, tile_px=16, splits=splits, name="target"))["id"])


@pytest.fixture
def source(api: httpx.Client) -> str:
    found = registered(upload(api, {"s.png": png(grey(9))}, {"s.png": png(mask())}, name="source"))
    return str(found["id"])


def label(api: httpx.Client, dataset: str, labels: dict[int, str]) -> None:
    body = {"labels": [{"image": n, "classes": {"organelle": s}} for n, s in labels.items()]}
    assert api.put(f"/datasets/{dataset}/labels", json=body).status_code == 200


def halves() -> dict[int, str]:
    return {n: "present" if n % 2 else "absent" for n in range(TILES)}


def asked_of(api: httpx.Client, dataset: str, **query: Any) -> dict[str, Any]:
    answer = api.get(f"/datasets/{dataset}/next-tiles", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def probed(
    database: Database,
    storage: Storage,
    target: str,
    source: str,
    peaks: dict[str, Sequence[float]],
    **columns: Any,
) -> tuple[UUID, UUID]:
    """A probe as a worker leaves it, of one model; a view has a peak of the organelle per tile."""
    trained = add_job(database, source, source, kind=JobKind.PRETRAIN)
    model = add_model(database, trained, source)
    result = ProbeResult(
        models=(
            ProbedModel(
                model=model, kind=ModelKind.SEGMENTER, source=UUID(source), trained_on_labels=False,
                loss=None, consistency=None, tile_nm={"organelle": 200.0},
            ),
        ),
        left_out=(LeftOut(model=UUID(int=7), reason="it has other classes"),),
        num_sections=4, of_sections=4, num_tiles=TILES, num_labelled=0,
    )  # fmt: skip
    job = add_job(
        database, source, target, kind=JobKind.PROBE, attempt=1, finished_at=now_plus(0),
        result={"probe": result.model_dump(mode="json")}, **columns,
    )  # fmt: skip
    folder = storage.attempt(job, 1)
    folder.mkdir(parents=True)
    save_looks(folder / FILE, [_look(str(model), view, each) for view, each in peaks.items()])
    return job, model


def _look(model: str, view: str, peaks: Sequence[float]) -> Look:
    organelle = np.array(peaks, np.float64)
    both = np.stack([1 - organelle, organelle], axis=1)
    meta = LookMeta.model_validate(
        {
            "model": model, "title": f"On the {view} image", "view": view, "statistics": "source",
            "class_names": CLASSES, "as_it_is": view == "raw", "consistency": 0.5,
        }
    )  # fmt: skip
    return Look(
        meta=meta,
        tiles=np.arange(len(peaks)),
        sections=np.arange(len(peaks)) // 6,
        shares=(both > 0.5).astype(np.float64),
        peaks=both,
        source_area=np.array([0.9, 0.3]),
    )


def test_without_a_probe_tiles_are_spread_over_sections(api: httpx.Client, target: str) -> None:
    found = asked_of(api, target, limit=4)
    assert len({item["section"] for item in found["items"]}) == 4
    assert [item["told"] for item in found["items"]] == [None] * 4
    assert (found["probe"], found["enough"], found["num_unlabelled"]) == (None, None, TILES)
    assert "/jobs/probe" in found["reason"]
    label(api, target, {item["image"]: "absent" for item in found["items"]})
    again = asked_of(api, target, limit=1000)
    assert (again["num_labelled"], len(again["items"])) == (4, 20)
    known = {item["image"] for item in found["items"]}
    assert known.isdisjoint(item["image"] for item in again["items"])


def test_numbers_of_tiles_count_within_their_section(api: httpx.Client, target: str) -> None:
    items = asked_of(api, target, limit=1000)["items"]
    assert sorted(item["image"] for item in items) == list(range(TILES))
    assert all(item["tile"] == item["image"] % 6 for item in items)
    assert all(item["section"] == "abcd"[item["image"] // 6] for item in items)


def test_disputed_tiles_come_first_after_a_probe(
    api: httpx.Client, database: Database, storage: Storage, target: str, source: str
) -> None:
    raw = [0.9] * TILES
    other = [0.9] * TILES
    other[8], other[20] = 0.1, 0.4
    job, _ = probed(database, storage, target, source, {"raw": raw, "inverted": other})
    found = asked_of(api, target, limit=3)
    assert found["items"][0]["image"] == 8
    told = {item["image"]: item["told"] for item in found["items"]}
    first = found["items"][0]
    assert first["told"] > told[20] > 0
    assert first["presence"]["organelle"] == pytest.approx(0.5)
    assert (found["probe"]["job"], found["looked_at"]) == (str(job), TILES)
    assert found["probe"]["left_out"][0]["reason"] == "it has other classes"
    assert found["enough"] is False
    # 200 nm in the source's masks are 50 px of 4 nm, in steps of 8.
    assert found["suggested_tile_px"]["organelle"] == {
        "tile_px": 48, "told_by": "source", "share": None,
    }  # fmt: skip


def test_labels_that_came_after_the_probe_count(
    api: httpx.Client, database: Database, storage: Storage, target: str, source: str
) -> None:
    truth = [0.95 if n % 2 else 0.05 for n in range(TILES)]
    wrong_way = [1 - each for each in truth]
    _, model = probed(database, storage, target, source, {"raw": wrong_way, "inverted": truth})
    path = f"/datasets/{target}/suggested-sources"
    before = api.get(path).json()
    assert before["items"][0]["loss"] is None
    label(api, target, halves())
    found = api.get(path).json()
    best = found["items"][0]
    assert (best["model"], best["view"], best["source"]) == (str(model), "inverted", source)
    # Fewer than 60 tiles: the consistency of 0.5 counts, too.
    assert best["loss"]["value"] == pytest.approx(-np.log(0.95) - np.log(0.5), abs=1e-3)
    assert best["gain"]["low"] > 1
    assert best["classes"]["organelle"]["misses"]["wrong"] == 0
    assert "invert" in best["note"]
    enough = asked_of(api, target)
    assert (enough["enough"], enough["items"]) == (True, [])
    assert enough["suggested_tile_px"]["organelle"]["share"] == 0.5


def test_the_benefit_is_told_before_the_job(
    api: httpx.Client, database: Database, storage: Storage, target: str, source: str
) -> None:
    body = {"source": source, "target": target, "preset": "smoke"}
    dry = api.post("/jobs/adapt?dry_run=true", json=body)
    assert dry.status_code == 200, dry.text
    benefit = dry.json()["benefit"]
    assert (benefit["probe"], benefit["verdict"]) == (None, None)
    assert "/jobs/pretrain" in benefit["advice"][0]

    truth = [0.95 if n % 2 else 0.05 for n in range(TILES)]
    wrong_way = [1 - each for each in truth]
    probed(database, storage, target, source, {"raw": wrong_way, "inverted": truth})
    unlabelled = api.post("/jobs/adapt?dry_run=true", json=body).json()["benefit"]
    assert unlabelled["verdict"]["num_tiles"] == 0
    assert "label" in unlabelled["advice"][0].lower()
    label(api, target, halves())
    told = api.post("/jobs/adapt?dry_run=true", json=body).json()["benefit"]
    verdict = told["verdict"]
    assert (verdict["outcome"], verdict["use"]) == ("better", "inverted, source")
    assert verdict["candidates"][0]["classes"]["organelle"]["misses"]["wrong"] == 12
    assert any("`invert`" in words for words in told["advice"])


def test_a_target_with_the_images_of_its_source_has_no_benefit(
    api: httpx.Client, source: str
) -> None:
    body = {"source": source, "target": source, "preset": "smoke"}
    told = api.post("/jobs/adapt?dry_run=true", json=body).json()["benefit"]
    assert (told["probe"], len(told["advice"])) == (None, 1)
    assert "/jobs/probe" not in told["advice"][0]


def test_a_better_source_is_named(
    api: httpx.Client, database: Database, storage: Storage, target: str, source: str
) -> None:
    other = str(
        registered(upload(api, {"n.png": png(grey(5))}, {"n.png": png(mask())}, name="near"))["id"]
    )
    near = add_model(database, add_job(database, other, kind=JobKind.PRETRAIN), other)
    truth = [0.95 if n % 2 else 0.05 for n in range(TILES)]
    job, model = probed(database, storage, target, source, {"raw": [0.5] * TILES})
    looks = [_look(str(model), "raw", [0.5] * TILES), _look(str(near), "raw", truth)]
    save_looks(storage.attempt(job, 1) / FILE, looks)
    label(api, target, halves())
    ranked = api.get(f"/datasets/{target}/suggested-sources").json()
    assert [item["source_name"] for item in ranked["items"]] == ["near", "source"]
    body = {"source": source, "target": target, "preset": "smoke"}
    told = api.post("/jobs/adapt?dry_run=true", json=body).json()["benefit"]
    assert any("near" in words for words in told["advice"])
    best = api.post("/jobs/adapt?dry_run=true", json=body | {"source": other}).json()["benefit"]
    assert not any("suits the target better" in words for words in best["advice"])


def test_a_deleted_source_stays_in_the_ranking_and_says_so(
    api: httpx.Client, database: Database, storage: Storage, target: str, source: str
) -> None:
    probed(database, storage, target, source, {"raw": [0.5] * TILES})
    assert api.delete(f"/datasets/{source}").status_code == 204
    (item,) = api.get(f"/datasets/{target}/suggested-sources").json()["items"]
    assert (item["source"], item["source_deleted"]) == (source, True)
    assert asked_of(api, target)["probe"] is not None


def test_whole_sections_are_listed_with_the_advice_to_cut_tiles(api: httpx.Client) -> None:
    files = {f"{name}.png": png(grey(seed, 32, 48)) for seed, name in enumerate("ab")}
    whole = str(registered(upload(api, files))["id"])
    found = asked_of(api, whole)
    assert [(item["section"], item["tile"]) for item in found["items"]] == [("b", 0), ("a", 0)]
    assert "tile_px" in found["notes"][0]
    assert found["suggested_tile_px"] == {}


def test_sources_without_a_probe_say_what_to_do(
    api: httpx.Client, target: str, source: str
) -> None:
    found = api.get(f"/datasets/{target}/suggested-sources").json()
    assert found["probe"] is None
    assert [(item["source"], item["model"]) for item in found["items"]] == [(source, None)]
    assert "/jobs/pretrain" in found["items"][0]["note"]


def test_a_damaged_probe_is_as_none(
    api: httpx.Client, database: Database, storage: Storage, target: str, source: str
) -> None:
    job, _ = probed(database, storage, target, source, {"raw": [0.5] * TILES})
    (storage.attempt(job, 1) / FILE).write_bytes(b"PK\x03\x04")
    assert asked_of(api, target)["probe"] is None


def test_wrong_requests_are_refused(api: httpx.Client, target: str) -> None:
    unknown = UUID(int=1)
    for path in ("next-tiles", "suggested-sources"):
        problem(api.get(f"/datasets/{unknown}/{path}"), 404)
        assert "query.limit" in wrong(api.get(f"/datasets/{target}/{path}?limit=0"))
    assert "pretrain" in wrong(api.post("/jobs/probe", json={"target": target}))["body.target"]
    assert "body.target" in wrong(api.post("/jobs/probe", json={"target": str(unknown)}), 404)
    named = {"target": target, "models": [str(unknown)]}
    assert "body.models.0" in wrong(api.post("/jobs/probe", json=named), 404)


def test_models_that_do_not_suit_are_refused_or_left_out(
    api: httpx.Client, database: Database, storage: Storage, target: str, source: str
) -> None:
    job = add_job(database, source, kind=JobKind.PRETRAIN)
    gone = add_model(database, job, source)
    named = {"target": target, "models": [str(gone)]}
    assert "gone" in wrong(api.post("/jobs/probe", json=named))["body.models"]
    other = add_model(
        database, add_job(database, source, kind=JobKind.PRETRAIN), source, class_names=["a", "b"],
    )  # fmt: skip
    named["models"] = [str(other)]
    assert api.post("/jobs/probe", json=named).status_code == 422
    third = add_job(database, source, kind=JobKind.PRETRAIN)
    good = add_model(database, third, source)
    (storage.job(third) / "1" / "segmenter").mkdir(parents=True)
    both = {"target": target, "models": [str(good)], "sources": [source]}
    assert "body.sources" in wrong(api.post("/jobs/probe", json=both))
    taken = api.post("/jobs/probe", json={"target": target})
    assert (taken.status_code, taken.json()["kind"]) == (202, "probe")


def test_the_commands_show_the_same(
    api: httpx.Client, database: Database, storage: Storage, target: str, source: str
) -> None:
    raw, other = [0.9] * TILES, [0.9] * TILES
    other[8] = 0.1
    probed(database, storage, target, source, {"raw": raw, "inverted": other})
    url = ["--url", str(api.base_url)]
    shown = CliRunner().invoke(cli, ["labels", "next", target, "--limit", "1", *url])
    assert shown.exit_code == 0, shown.output
    assert "organelle" in shown.output
    ranked = CliRunner().invoke(cli, ["datasets", "sources", target, *url])
    assert ranked.exit_code == 0, ranked.output
    assert "source" in ranked.output
    refused = CliRunner().invoke(cli, ["jobs", "probe", target, *url])
    assert refused.exit_code != 0


@pytest.mark.parametrize("shown", [0, 30])
def test_a_class_that_no_label_calls_present_gets_no_size(api: httpx.Client, shown: int) -> None:
    files = {f"{name}.png": png(grey(seed, 64, 96)) for seed, name in enumerate("ab")}
    splits = {"train": ["a", "b"], "val": [], "test": []}
    cut = str(registered(upload(api, files, tile_px=16, splits=splits))["id"])
    label(api, cut, {n: "present" if n < shown else "absent" for n in range(40)})
    found = asked_of(api, cut)["suggested_tile_px"]
    assert [size["told_by"] for size in found.values()] == (["labels"] if shown else [])
