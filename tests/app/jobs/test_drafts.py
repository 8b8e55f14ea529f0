"""From a request to a job: the whole configuration that results, in the row and in the answer."""

from typing import Any
from uuid import UUID

import httpx
import pytest

from app.database import Database
from app.settings import Settings
from app.tables import ModelKind
from models.config.presets import preset
from tests.app.conftest import Serve
from tests.app.files import problem, tells, wrong
from tests.app.jobs.requests import accepted, submit
from tests.app.records import add_job, add_model, config_with


def test_given_fields_replace_those_of_the_preset_and_no_others(
    api: httpx.Client, source: str, target: str
) -> None:
    given = {
        "style": {"steps": 7, "lambda_nce": 10},
        "adaptation": {"augmentation": {"noise_sigma": 0.0}, "label_filter": False},
        "seed": 3,
    }
    for name in ("smoke", "quick", "best", "paper"):
        method = {"method": "stylefilter"}  # the other one needs the filter
        job = accepted(
            submit(api, "adapt", source=source, target=target, preset=name, config=given | method)
        )
        expected = preset(name).model_dump(mode="json")
        expected["style"] |= {"steps": 7, "lambda_nce": 10.0}
        expected["adaptation"]["augmentation"]["noise_sigma"] = 0.0
        expected["adaptation"]["label_filter"] = False
        expected |= method | {"seed": 3}
        assert job["config"] == expected
    default = accepted(submit(api, "adapt", source=source, target=target))
    assert default["config"] == preset("quick").model_dump(mode="json")


def test_a_choice_by_labels_sets_the_fields_that_it_needs(
    api: httpx.Client, source: str, target: str
) -> None:
    body: dict[str, Any] = {"source": source, "target": target}
    expected = preset("best").model_dump(mode="json")
    assert (expected["method"], expected["adaptation"]["select_on"]) == ("chosen", "target_val")
    expected["adaptation"]["select_on"] = "last"
    job = accepted(submit(api, "adapt", **body, preset="best"))
    assert job["config"] == expected
    again = accepted(submit(api, "adapt", **body, config=job["config"]))
    assert again["config"] == expected
    for section, name, value in (
        ("adaptation", "label_filter", False),
        ("adaptation", "select_on", "target_val"),
    ):
        config = {"method": "chosen", section: {name: value}}
        refused = wrong(submit(api, "adapt", **body, preset="smoke", config=config))
        tells(refused, {f"body.config.{section}.{name}": (name, "chosen")})


def test_jobs_that_choose_nothing_refuse_the_method(
    api: httpx.Client, source: str, target: str, style: str, segmenter: str
) -> None:
    models = {"style_model": style, "segmenter_model": segmenter}
    for kind, body in (
        ("pretrain", {"source": source}),
        ("train-style", {"source": source, "target": target}),
        ("stylefilter", models),
    ):
        refused = wrong(submit(api, kind, **body, config={"method": "chosen"}))
        tells(refused, {"body.config.method": ("chosen", "/jobs/adapt")})
    # A preset's method is none of a single stage; the third step is one of another method.
    trained = accepted(submit(api, "pretrain", source=source, preset="best"))
    assert trained["config"] == preset("best").model_dump(mode="json") | {"method": "stylefilter"}
    refused = wrong(submit(api, "stylefilter", **models, preset="best"))
    assert list(refused) == ["body.config.method"]
    asked = {"method": "stylefilter"}
    accepted(submit(api, "stylefilter", **models, preset="best", config=asked))


def test_a_field_given_as_null_replaces_the_preset_too(api: httpx.Client, source: str) -> None:
    config = {"pretrain": {"steps": None, "epochs": 2}}
    job = accepted(submit(api, "pretrain", source=source, preset="smoke", config=config))
    assert (job["config"]["pretrain"]["steps"], job["config"]["pretrain"]["epochs"]) == (None, 2)


def test_a_length_in_epochs_replaces_the_steps_of_the_preset(
    api: httpx.Client, source: str, target: str
) -> None:
    config = {
        "style": {"epochs_decay": 3},
        "pretrain": {"epochs": 2},
        "adaptation": {"validate_every_epochs": 1.0},
    }
    body = {"source": source, "target": target}
    job = accepted(submit(api, "adapt", **body, preset="quick", config=config))
    expected = preset("quick").model_dump(mode="json")
    expected["style"] |= {"steps": None, "epochs_decay": 3}
    expected["pretrain"] |= {"steps": None, "epochs": 2}
    expected["adaptation"] |= {"validate_every_steps": None, "validate_every_epochs": 1.0}
    assert job["config"] == expected
    for stage, epochs, steps in (
        ("style", "epochs_constant", "steps"),
        ("pretrain", "epochs", "steps"),
        ("adaptation", "validate_every_epochs", "validate_every_steps"),
    ):
        both = accepted(submit(api, "adapt", **body, config={stage: {epochs: 2, steps: 7}}))
        assert both["config"][stage] == preset("quick").model_dump(mode="json")[stage] | {
            epochs: 2,
            steps: 7,
        }
    # A stored config can be sent again as it is.
    again = accepted(submit(api, "adapt", **body, preset="quick", config=job["config"]))
    assert again["config"] == job["config"]


@pytest.mark.parametrize("stage", ["pretrain", "adaptation"])
def test_a_part_is_checked_in_its_preset_and_the_whole_is_told(
    api: httpx.Client, source: str, target: str, stage: str
) -> None:
    """The preset computes batches of 4; one of the paper's 1 or 2 has no 4 parts."""
    given = {"source": source, "target": target, "config": {stage: {"accumulate": 4}}}
    whole = preset("quick").model_dump(mode="json")
    whole[stage]["accumulate"] = 4
    for kind in ("adapt", "train-style"):
        assert accepted(submit(api, kind, **given))["config"] == whole
        estimate = api.post(f"/jobs/{kind}", params={"dry_run": True}, json=given)
        assert (estimate.status_code, estimate.json()["config"]) == (200, whole)
    refused = wrong(submit(api, "adapt", **given | {"config": {stage: {"accumulate": 3}}}))
    assert list(refused) == [f"body.config.{stage}"]
    assert "batch_size 4" in refused[f"body.config.{stage}"]


def test_no_config_and_an_empty_one_are_the_preset(api: httpx.Client, source: str) -> None:
    for config in (None, {}, {"style": {}}):
        job = accepted(submit(api, "pretrain", source=source, config=config))
        assert job["config"] == preset("quick").model_dump(mode="json")
    for config in ([], "quick", 1):
        assert list(wrong(submit(api, "pretrain", source=source, config=config))) == ["body.config"]


def test_a_config_out_of_range_names_the_field(api: httpx.Client, source: str, target: str) -> None:
    cases: dict[str, dict[str, Any]] = {
        "body.config.style.crop_px": {"style": {"crop_px": 33}},
        "body.config.style.learning_rate": {"style": {"learning_rate": 0}},
        "body.config.segmenter.norm": {"segmenter": {"norm": "layer"}},
        "body.config.adaptation.augmentation.contrast": {
            "adaptation": {"augmentation": {"contrast": 1.5}}
        },
        "body.config.seed": {"seed": 2**31},
        "body.config.style.validate_every_steps": {"style": {"validate_every_steps": 2**31}},
        "body.config.pretrain.validate_every_steps": {
            "pretrain": {"validate_every_steps": 10**4000}
        },
        "body.config.device": {"device": "tpu"},
        "body.config.style.filters": {"style": {"filters": 8}},
        "body.config.epochs": {"epochs": 8},
        "body.config.adaptation.augmentation": {"adaptation": {"augmentation": None}},
        "body.config.pretrain.epochs": {"pretrain": {"epochs": None}},
        "body.config.style": {"style": [300]},
    }
    for where, config in cases.items():
        refused = submit(api, "adapt", source=source, target=target, config=config)
        assert list(wrong(refused)) == [where]
    several = {"style": {"crop_px": 1, "base_filters": 1}}
    refused = submit(api, "adapt", source=source, target=target, config=several)
    assert "body.config.style." in problem(refused, 422)["detail"]
    assert len(wrong(refused)) == 2
    assert list(wrong(submit(api, "pretrain", source=source, presets="smoke"))) == ["body.presets"]
    assert list(wrong(submit(api, "pretrain", source=source, preset="fast"))) == ["body.preset"]
    assert list(wrong(submit(api, "pretrain", source="1"))) == ["body.source"]
    assert list(wrong(submit(api, "pretrain"))) == ["body.source"]


def test_a_config_that_only_the_preset_makes_impossible(api: httpx.Client, source: str) -> None:
    none = {"style": {"steps": None, "epochs_constant": 0, "epochs_decay": 0}}
    refused = submit(api, "train-style", source=source, target=source, config=none)
    assert "length" in problem(refused, 422)["detail"]
    deep = {"segmenter": {"depth": 5}}
    refused = submit(api, "pretrain", source=source, preset="smoke", config=deep)
    tells(wrong(refused), {"body.config": ("segmenter.depth", "64 px", "pretrain.crop_px", 32)})
    given = deep | {"pretrain": {"crop_px": 64}, "adaptation": {"crop_px": 64}}
    accepted(submit(api, "pretrain", source=source, preset="smoke", config=given))


def test_an_infinite_number_is_refused(api: httpx.Client, source: str) -> None:
    body = f'{{"source": "{source}", "config": {{"pretrain": {{"validate_every_epochs": 1e999}}}}}}'
    headers = {"content-type": "application/json"}
    refused = api.post("/jobs/pretrain", content=body, headers=headers)
    assert list(wrong(refused)) == ["body.config.pretrain.validate_every_epochs"]


def test_stylefilter_takes_architecture_and_pixel_size_from_its_models(
    api: httpx.Client, database: Database, source: str, target: str
) -> None:
    config = config_with(style={"base_filters": 8}, segmenter={"depth": 3}, pixel_size_factor=2.0)
    style = add_model(
        database,
        add_job(database, source, target),
        source,
        kind=ModelKind.STYLE,
        target_id=UUID(target),
        config=config,
    )
    segmenter = add_model(database, add_job(database, source), source, config=config)
    models = {"style_model": str(style), "segmenter_model": str(segmenter)}
    given = {"adaptation": {"steps": 9, "accumulate": 2}}
    job = accepted(submit(api, "stylefilter", **models, preset="quick", config=given))
    expected = preset("quick").model_dump(mode="json") | {
        name: config[name] for name in ("style", "segmenter", "pretrain", "pixel_size_factor")
    }
    expected["adaptation"] |= given["adaptation"]
    assert job["config"] == expected
    for field, value in (("style", {"steps": 1}), ("pixel_size_factor", 1.0)):
        refused = submit(api, "stylefilter", **models, config={field: value})
        assert list(wrong(refused)) == [f"body.config.{field}"]


def test_the_settings_choose_the_device_unless_the_request_does(
    settings: Settings, serve: Serve, source: str
) -> None:
    api = serve(settings.model_copy(update={"device": "cuda"}))
    assert accepted(submit(api, "pretrain", source=source))["config"]["device"] == "cuda"
    on_cpu = accepted(submit(api, "pretrain", source=source, config={"device": "cpu"}))
    assert on_cpu["config"]["device"] == "cpu"


def test_an_evaluation_runs_on_the_device_of_the_settings(
    settings: Settings, serve: Serve, database: Database, source: str
) -> None:
    trained = config_with() | {"device": "cuda"}
    model = add_model(database, add_job(database, source), source, config=trained)
    body = {"model": str(model), "dataset": source, "split": "train", "stylise": False}
    job = accepted(submit(serve(settings), "evaluate", **body))
    assert job["config"] == trained | {"device": "cpu"}
