"""The verdict of a job, over HTTP and on the command line."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.client.client import Client
from app.database import Database
from app.tables import JobKind, JobState, ModelKind
from models.choice.verdict import Verdict
from tests.app.files import grey, png, registered, upload
from tests.app.records import add_job, add_model


def stored(outcome: str = "worse", use: str = "source-only") -> dict[str, Any]:
    def candidate(name: str, missed: int, gain: dict[str, float] | None) -> dict[str, Any]:
        rate = {"wrong": missed, "of": 20, "low": 0.1, "high": 0.4}
        organelle = dict.fromkeys(("balanced_accuracy", "f1", "area", "source_area", "dice"))
        return {
            "name": name,
            "title": name.capitalize(),
            "loss": 0.5,
            "gain": gain,
            "trained_on_labels": name == "stylefilter",
            "classes": {"organelle": organelle | {"misses": rate, "claims": rate}},
            "mean_dice": None,
        }

    lower = {"value": -0.2, "low": -0.3, "high": -0.1}
    return {
        "outcome": outcome,
        "use": use,
        "num_tiles": 40,
        "num_sections": 8,
        "candidates": [
            candidate("source-only", 2, None),
            candidate("cut", 5, lower),
            candidate("stylefilter", 9, lower),
        ],
        "findings": ["Something was found."],
        "advice": ["Do this."],
    }


@pytest.fixture
def source(api: httpx.Client) -> str:
    found: str = registered(upload(api, {"a.png": png(grey(1))}))["id"]
    return found


def with_models(database: Database, source: str, verdict: Any) -> dict[str, UUID]:
    job = add_job(database, source, source, result={"verdict": verdict, "reused": []})
    made = {"job": job, "segmenter": add_model(database, job, source)}
    made["style"] = add_model(database, job, source, kind=ModelKind.STYLE)
    made["stylefilter"] = add_model(
        database,
        job,
        source,
        kind=ModelKind.STYLEFILTER,
        target_id=UUID(source),
        style_model_id=made["style"],
        segmenter_model_id=made["segmenter"],
    )
    return made


@pytest.mark.parametrize(
    ("use", "model", "stylise"),
    [
        ("source-only", "segmenter", False),
        ("cut", "segmenter", True),
        ("stylefilter", "stylefilter", True),
    ],
)
def test_the_verdict_names_the_model_to_use(
    api: httpx.Client, database: Database, source: str, use: str, model: str, *, stylise: bool
) -> None:
    made = with_models(database, source, stored("better", use))
    taken = {"kind": "stylefilter", "model": str(made["stylefilter"]), "job": str(made["job"])}
    reusing = add_job(
        database,
        source,
        source,
        kind=JobKind.STYLEFILTER,
        result={"verdict": stored("better", use), "reused": [taken]},
    )
    with Client(str(api.base_url)) as client:
        for job in (made["job"], reusing):
            found = client.verdict(job)
            assert found.verdict == Verdict.model_validate(stored("better", use))
            assert found.use is not None
            assert (found.use.model, found.use.stylise) == (made[model], stylise)
            assert found.use.style_model == (made["style"] if stylise else None)


@pytest.mark.parametrize(
    ("kind", "model_kind", "use"),
    [
        (JobKind.ADAPT, ModelKind.CHOSEN, "inverted, source, area 0"),
        (JobKind.ADAPT, ModelKind.CHOSEN, "source-only"),
        (JobKind.METHOD, ModelKind.CHOSEN, "inverted, source, area 0"),
        (JobKind.METHOD, ModelKind.BASELINE, "inverted, source, area 0"),
    ],
)
def test_what_labels_chose_is_a_model_of_its_own(
    api: httpx.Client,
    database: Database,
    source: str,
    kind: JobKind,
    model_kind: ModelKind,
    use: str,
) -> None:
    job = add_job(database, source, source, kind=kind, result={"verdict": stored("better", use)})
    columns = {"kind": model_kind, "target_id": UUID(source)}
    model = add_model(database, job, source, **columns)
    found = api.get(f"/jobs/{job}/verdict").json()
    assert found["use"] == {"model": str(model), "stylise": False, "style_model": None}


def test_a_verdict_that_does_not_exist_is_said_to_lack(
    api: httpx.Client, database: Database, source: str
) -> None:
    for status, columns in (
        (404, {"kind": JobKind.PRETRAIN}),
        (404, {"result": {"notes": []}}),
        (404, {"result": {"verdict": {"outcome": "a word of another version"}}}),
        (409, {"state": JobState.RUNNING}),
        (409, {"state": JobState.FAILED}),
    ):
        job = add_job(database, source, source, **columns)
        answer = api.get(f"/jobs/{job}/verdict")
        assert (answer.status_code, str(job) in answer.json()["detail"]) == (status, True)
    assert api.get(f"/jobs/{UUID(int=1)}/verdict").status_code == 404


def test_models_that_are_gone_are_not_named(
    api: httpx.Client, database: Database, source: str
) -> None:
    job = add_job(database, source, source, result={"verdict": stored()})
    answer = api.get(f"/jobs/{job}/verdict")
    assert (answer.status_code, answer.json()["use"]) == (200, None)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_command_shows_errors_and_advice(
    api: httpx.Client, database: Database, source: str
) -> None:
    made = with_models(database, source, stored())
    words = ["jobs", "verdict", str(made["job"]), "--url", str(api.base_url)]
    result = CliRunner().invoke(cli, words, env={"COLUMNS": "120"})
    said = " ".join(result.output.split())
    assert result.exit_code == 0, said
    for part in ("Do this.", "9 of 20", "-0.200", str(made["segmenter"]), "Something was found."):
        assert part in said
