"""Jobs submitted over HTTP, accepted or refused. No worker runs."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.database import Database, now_plus
from app.settings import Settings
from app.tables import Dataset, Job, ModelKind
from models.config import preset
from models.config_versions import CONFIG_VERSION
from tests.app.conftest import Serve
from tests.app.files import grey, mask, png, problem, registered, tells, upload, wrong
from tests.app.jobs.requests import accepted, submit
from tests.app.records import add_job, add_model, config_with


def test_adapt_is_accepted_and_waits(
    api: httpx.Client, settings: Settings, source: str, target: str
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    job = accepted(submit(api, "adapt", source=source, target=target, preset="smoke"))
    created = datetime.fromisoformat(job.pop("created_at"))
    assert before < created < before + timedelta(seconds=30)
    assert api.get(f"/jobs/{job['id']}").json().items() >= job.items()
    assert UUID(job.pop("id")).version == 4
    assert job == {
        "kind": "adapt",
        "state": "queued",
        "lane": "cpu",
        "parent": None,
        "part": None,
        "priority": 0,
        "after": [],
        "attempt": 0,
        "lost_attempts": 0,
        "max_attempts": 5,
        "not_before": None,
        "stage": None,
        "step": 0,
        "total": 0,
        "steps_per_second": None,
        "eta_seconds": None,
        "stages": [],
        "error": None,
        "source": source,
        "target": target,
        "models": [],
        "result": None,
        "config": preset("smoke").model_dump(),
        "config_version": CONFIG_VERSION,
        "started_at": None,
        "finished_at": None,
    }
    # The doorbell rang: one message lies in the broker's folder.
    assert len(list((settings.data_folder / "broker" / "messages").iterdir())) == 1


def test_each_stage_alone(
    api: httpx.Client, database: Database, source: str, target: str, style: str, segmenter: str
) -> None:
    masked = registered(upload(api, {"m.png": png(grey(5))}, {"m.png": png(mask())}))["id"]
    submitted = {
        "train-style": accepted(submit(api, "train-style", source=source, target=target)),
        "pretrain": accepted(submit(api, "pretrain", source=source)),
        "stylefilter": accepted(
            submit(api, "stylefilter", style_model=style, segmenter_model=segmenter)
        ),
        "evaluate": accepted(
            submit(api, "evaluate", model=segmenter, dataset=masked, split="train", stylise=False)
        ),
    }
    assert {kind: job["kind"] for kind, job in submitted.items()} == {k: k for k in submitted}
    ends = {kind: (job["source"], job["target"]) for kind, job in submitted.items()}
    assert ends == {
        "train-style": (source, target),
        "pretrain": (source, None),
        "stylefilter": (source, target),
        "evaluate": (source, masked),
    }
    with database.reading() as session:
        stylefilter = session.get_one(Job, UUID(submitted["stylefilter"]["id"]))
        assert (stylefilter.style_model_id, stylefilter.segmenter_model_id) == (
            UUID(style),
            UUID(segmenter),
        )
        evaluate = session.get_one(Job, UUID(submitted["evaluate"]["id"]))
        assert (evaluate.style_model_id, evaluate.segmenter_model_id) == (None, UUID(segmenter))
        assert (evaluate.split, evaluate.stylise) == ("train", False)


def test_given_fields_replace_those_of_the_preset_and_no_others(
    api: httpx.Client, source: str, target: str
) -> None:
    given = {
        "style": {"steps": 7, "lambda_nce": 10},
        "adaptation": {"augmentation": {"noise_sigma": 0.0}, "label_filter": False},
        "seed": 3,
    }
    for name in ("smoke", "quick", "paper"):
        job = accepted(
            submit(api, "adapt", source=source, target=target, preset=name, config=given)
        )
        expected = preset(name).model_dump()
        expected["style"] |= {"steps": 7, "lambda_nce": 10.0}
        expected["adaptation"]["augmentation"]["noise_sigma"] = 0.0
        expected["adaptation"]["label_filter"] = False
        expected["seed"] = 3
        assert job["config"] == expected
    default = accepted(submit(api, "adapt", source=source, target=target))
    assert default["config"] == preset("quick").model_dump()


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
    expected = preset("quick").model_dump()
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
        assert both["config"][stage] == preset("quick").model_dump()[stage] | {epochs: 2, steps: 7}
    # A stored config can be sent again as it is.
    again = accepted(submit(api, "adapt", **body, preset="quick", config=job["config"]))
    assert again["config"] == job["config"]


@pytest.mark.parametrize("stage", ["pretrain", "adaptation"])
def test_a_part_is_checked_in_its_preset_and_the_whole_is_told(
    api: httpx.Client, source: str, target: str, stage: str
) -> None:
    """The preset computes batches of 4; one of the paper's 1 or 2 has no 4 parts."""
    given = {"source": source, "target": target, "config": {stage: {"accumulate": 4}}}
    whole = preset("quick").model_dump()
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
        assert job["config"] == preset("quick").model_dump()
    for config in ([], "quick", 1):
        assert list(wrong(submit(api, "pretrain", source=source, config=config))) == ["body.config"]


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
    expected = preset("quick").model_dump() | {
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


def test_unknown_ids_name_the_field(
    api: httpx.Client, source: str, target: str, style: str, segmenter: str
) -> None:
    unknown = str(uuid4())
    for kind, field, body in (
        ("adapt", "source", {"source": unknown, "target": target}),
        ("adapt", "target", {"source": source, "target": unknown}),
        ("train-style", "target", {"source": source, "target": unknown}),
        ("pretrain", "source", {"source": unknown}),
        ("stylefilter", "style_model", {"style_model": unknown, "segmenter_model": segmenter}),
        ("stylefilter", "segmenter_model", {"style_model": style, "segmenter_model": unknown}),
        ("evaluate", "model", {"model": unknown, "dataset": target}),
        ("evaluate", "dataset", {"model": segmenter, "dataset": unknown}),
    ):
        errors = wrong(submit(api, kind, **body), 404)
        assert list(errors) == [f"body.{field}"], (kind, field)
        assert unknown in errors[f"body.{field}"]


def test_datasets_that_do_not_suit(api: httpx.Client, source: str, target: str) -> None:
    image, labels = {"o.png": png(grey(20))}, {"o.png": png(mask())}
    other = registered(upload(api, image, labels, class_names=["organelle", "background"]))["id"]
    held_out = registered(upload(api, image, labels, splits={"test": ["o"]}))["id"]
    coarse = registered(upload(api, image, pixel_size_nm=1e6))["id"]
    unmasked = {"body.source": ("mask", "train")}
    tells(wrong(submit(api, "adapt", source=target, target=source)), unmasked)
    tells(wrong(submit(api, "pretrain", source=target)), unmasked)
    for kind in ("adapt", "train-style"):
        order = wrong(submit(api, kind, source=source, target=other))
        tells(order, {"body.target": ("organelle, background", "background, organelle")})
        untrained = wrong(submit(api, kind, source=source, target=held_out))
        tells(untrained, {"body.target": ("train",)})
        huge = wrong(submit(api, kind, source=source, target=coarse))
        tells(huge, {"body.target": ("1000000 nm", "'o'", "5000000 x 7000000 px")})
    assert accepted(submit(api, "train-style", source=target, target=target))


def test_models_that_do_not_suit(
    api: httpx.Client, database: Database, source: str, target: str, style: str, segmenter: str
) -> None:
    elsewhere = str(add_model(database, add_job(database, target), target))
    finer = str(
        add_model(
            database,
            add_job(database, source),
            source,
            config=config_with(pixel_size_factor=0.5),
        )
    )

    def refusal(style_model: str, segmenter_model: str) -> dict[str, str]:
        body = {"style_model": style_model, "segmenter_model": segmenter_model}
        return wrong(submit(api, "stylefilter", **body))

    tells(refusal(segmenter, segmenter), {"body.style_model": ("kind segmenter",)})
    tells(refusal(style, style), {"body.segmenter_model": ("kind style",)})
    tells(refusal(style, elsewhere), {"body.segmenter_model": ("source",)})
    tells(refusal(style, finer), {"body.segmenter_model": ("pixel size",)})
    api.delete(f"/datasets/{target}")
    gone = {"style_model": style, "segmenter_model": segmenter}
    assert list(wrong(submit(api, "stylefilter", **gone), 404)) == ["body.target"]


def test_evaluations_that_cannot_be(
    api: httpx.Client, database: Database, source: str, style: str, segmenter: str
) -> None:
    body = {"model": segmenter, "dataset": source, "split": "train", "stylise": False}
    no_masks = wrong(submit(api, "evaluate", **body | {"split": "test"}))
    tells(no_masks, {"body.dataset": ("mask", "test")})
    tells(wrong(submit(api, "evaluate", **body | {"model": style})), {"body.model": ("style",)})
    assert list(wrong(submit(api, "evaluate", **body | {"stylise": True}))) == ["body.style_model"]
    not_style = body | {"stylise": True, "style_model": segmenter}
    tells(wrong(submit(api, "evaluate", **not_style)), {"body.style_model": ("kind segmenter",)})
    coarse = add_model(
        database,
        add_job(database, source),
        source,
        kind=ModelKind.STYLE,
        config=config_with(pixel_size_factor=4.0),
    )
    other_scale = body | {"stylise": True, "style_model": str(coarse)}
    tells(wrong(submit(api, "evaluate", **other_scale)), {"body.style_model": ("16 nm", 4)})
    accepted(submit(api, "evaluate", **body | {"stylise": True, "style_model": style}))


def test_an_evaluation_compares_pixel_sizes_not_factors(
    api: httpx.Client, database: Database, source: str, segmenter: str
) -> None:
    """Two style models of a source with pixels twice as fine as the segmenter's 4 nm."""
    image, labels = {"f.png": png(grey(3))}, {"f.png": png(mask())}
    fine = str(registered(upload(api, image, labels, pixel_size_nm=2.0))["id"])
    same_factor, same_nm = (
        str(
            add_model(
                database,
                add_job(database, fine),
                fine,
                kind=ModelKind.STYLE,
                config=config_with(pixel_size_factor=factor),
            )
        )
        for factor in (1.0, 2.0)
    )
    body = {"model": segmenter, "dataset": source, "split": "train"}
    refused = wrong(submit(api, "evaluate", **body, style_model=same_factor))
    tells(refused, {"body.style_model": ("2 nm", 4)})
    accepted(submit(api, "evaluate", **body, style_model=same_nm))


def test_an_evaluation_runs_on_the_device_of_the_settings(
    settings: Settings, serve: Serve, database: Database, source: str
) -> None:
    trained = config_with() | {"device": "cuda"}
    model = add_model(database, add_job(database, source), source, config=trained)
    body = {"model": str(model), "dataset": source, "split": "train", "stylise": False}
    job = accepted(submit(serve(settings), "evaluate", **body))
    assert job["config"] == trained | {"device": "cpu"}


def test_no_section_may_be_resampled_to_more_pixels_than_the_limit(
    settings: Settings, serve: Serve, database: Database, source: str, target: str
) -> None:
    """Sections of 40 x 56 pixels, as they are and four times as fine."""
    api = serve(settings.model_copy(update={"max_section_pixels": 5000}))
    told = ("4 nm", "1 nm per pixel", "'0'", "160 x 224 px", "5000 pixels")
    fine = {"pixel_size_factor": 0.25}
    for kind, body in (
        ("pretrain", {"source": source}),
        ("adapt", {"source": source, "target": target}),
        ("train-style", {"source": source, "target": target}),
    ):
        tells(wrong(submit(api, kind, **body, config=fine)), {"body.source": told})
        accepted(submit(api, kind, **body, config={"pixel_size_factor": 1.0}))
    model = add_model(database, add_job(database, source), source, config=config_with(**fine))
    body = {"model": str(model), "dataset": source, "split": "train", "stylise": False}
    tells(wrong(submit(api, "evaluate", **body)), {"body.dataset": told})
    # A coarse target fits once both domains are seen at a coarser size.
    image = {"c.png": png(grey(4))}
    coarse = registered(upload(api, image, pixel_size_nm=8.0))["id"]
    pair = {"source": source, "target": coarse}
    assert list(wrong(submit(api, "adapt", **pair, config={"pixel_size_factor": 1.0}))) == [
        "body.target"
    ]
    accepted(submit(api, "adapt", **pair, config={"pixel_size_factor": 2.0}))


def test_a_config_out_of_range_names_the_field(api: httpx.Client, source: str, target: str) -> None:
    cases: dict[str, dict[str, Any]] = {
        "body.config.style.crop_px": {"style": {"crop_px": 33}},
        "body.config.style.learning_rate": {"style": {"learning_rate": 0}},
        "body.config.segmenter.norm": {"segmenter": {"norm": "layer"}},
        "body.config.adaptation.augmentation.contrast": {
            "adaptation": {"augmentation": {"contrast": 1.5}}
        },
        "body.config.seed": {"seed": 2**31},
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


def test_the_order_of_a_requests_fields_makes_no_other_request(
    api: httpx.Client, source: str
) -> None:
    key = {"Idempotency-Key": "mine"}
    body = {"source": source, "config": {"seed": 1, "pretrain": {"steps": 3, "crop_px": 64}}}
    first = api.post("/jobs/pretrain", json=body, headers=key)
    turned = {"config": {"pretrain": {"crop_px": 64, "steps": 3}, "seed": 1}, "source": source}
    assert api.post("/jobs/pretrain", json=turned, headers=key).json() == first.json()
    other = body | {"config": {"seed": 2}}
    assert list(wrong(api.post("/jobs/pretrain", json=other, headers=key))) == [
        "header.Idempotency-Key"
    ]


def test_a_broker_that_is_down_loses_no_job(settings: Settings, serve: Serve, source: str) -> None:
    api = serve(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    job = accepted(submit(api, "pretrain", source=source))
    assert api.get(f"/jobs/{job['id']}").json()["state"] == "queued"


def test_a_dataset_being_deleted_takes_no_new_job(
    api: httpx.Client, database: Database, source: str
) -> None:
    answers: list[httpx.Response] = []
    late = threading.Thread(target=lambda: answers.append(submit(api, "pretrain", source=source)))
    with database.session() as session:
        dataset = session.get_one(Dataset, UUID(source), with_for_update=True)
        dataset.deleted_at = now_plus()
        session.flush()
        late.start()
        late.join(0.3)
        session.commit()
    late.join()
    assert list(wrong(answers[0], 404)) == ["body.source"]
