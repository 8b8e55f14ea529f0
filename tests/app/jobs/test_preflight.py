"""What a job would take, told before it is stored; jobs that cannot be are refused in words."""

import re
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import numpy as np
import pytest

import app.settings
from app.database import Database
from app.settings import Settings, machine_memory_bytes
from app.tables import ModelKind
from models.config.presets import preset
from tests.app.conftest import Serve
from tests.app.files import grey, mask, png, problem, registered, tells, upload, wrong
from tests.app.records import add_job, add_model


class Usage(NamedTuple):
    """Of a disk."""

    total: int
    used: int
    free: int


@pytest.fixture
def source(api: httpx.Client) -> str:
    """Two training sections of 40 x 56 px with masks, one of validation, one of test."""
    images = {f"{n}.png": png(grey(n)) for n in range(4)}
    masks = {name: png(mask()) for name in images}
    splits = {"train": ["0", "1"], "val": ["2"], "test": ["3"]}
    return str(registered(upload(api, images, masks, splits=splits))["id"])


@pytest.fixture
def target(api: httpx.Client) -> str:
    """Three training sections without masks."""
    images = {f"t{n}.png": png(grey(10 + n)) for n in range(3)}
    return str(registered(upload(api, images))["id"])


def dry(api: httpx.Client, kind: str, **body: Any) -> httpx.Response:
    return api.post(f"/jobs/{kind}", params={"dry_run": True}, json={"preset": "smoke"} | body)


def estimated(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    assert "location" not in response.headers
    estimate: dict[str, Any] = response.json()
    return estimate


def steps(estimate: dict[str, Any]) -> dict[str, int]:
    return {stage["stage"]: stage["steps"] for stage in estimate["stages"]}


def test_a_dry_run_tells_what_each_job_takes_and_stores_none(
    api: httpx.Client, settings: Settings, database: Database, source: str, target: str
) -> None:
    style = add_model(
        database,
        add_job(database, source, target),
        source,
        kind=ModelKind.STYLE,
        target_id=UUID(target),
    )
    segmenter = add_model(database, add_job(database, source), source)
    before = api.get("/jobs").json()
    adapt = estimated(dry(api, "adapt", source=source, target=target))
    assert steps(adapt) == {"style": 4, "pretrain": 6, "stylise": 3, "adapt": 6, "verdict": 9}
    assert adapt["config"] == preset("smoke").model_dump(mode="json")
    (note,) = adapt["notes"]
    assert "label" in note
    changed = {"labels": [{"image": 0, "classes": {"organelle": "absent"}}]}
    assert api.put(f"/datasets/{target}/labels", json=changed).status_code == 200
    assert estimated(dry(api, "adapt", source=source, target=target))["notes"] == []
    chosen = {"source": source, "target": target, "config": {"method": "chosen"}}
    choosing = estimated(dry(api, "adapt", **chosen))
    (note,) = choosing["notes"]
    assert "source-only" in note
    # Four views with both statistics, and two corrections of area of the best two, on 3 sections;
    # then three candidates of six steps.
    told = {"pretrain": 6, "verdict": 3 * (8 + 4), "stylise": 3, "adapt": 18}
    assert list(steps(choosing).items()) == list(told.items())
    assert adapt["memory_bytes"] == max(stage["memory_bytes"] for stage in adapt["stages"])
    assert 3e8 < adapt["memory_bytes"] < 6e8
    assert adapt["gpu_memory_bytes"] == 0
    assert 1e6 < adapt["disk_bytes"] < 2e7
    swapped = estimated(dry(api, "train-style", source=target, target=source))
    assert steps(swapped) == {"style": 4}
    assert steps(estimated(dry(api, "pretrain", source=source))) == {"pretrain": 6}
    models = {"style_model": str(style), "segmenter_model": str(segmenter)}
    assert steps(estimated(dry(api, "stylefilter", **models))) == {
        "stylise": 3,
        "adapt": 6,
        "verdict": 9,
    }
    # Scored where the target has masks to score by: four methods on one section.
    itself = estimated(dry(api, "adapt", source=source, target=source))
    trained = {"style": 4, "pretrain": 6, "stylise": 3, "adapt": 6}
    assert steps(itself) == trained | {"evaluate": 4, "verdict": 6}
    assert api.get("/jobs").json() == before
    assert not any((settings.data_folder / "broker" / "messages").glob("*"))


def test_lengths_in_epochs_become_steps(api: httpx.Client, source: str, target: str) -> None:
    config = {
        "style": {"epochs_constant": 2, "epochs_decay": 3},
        "pretrain": {"epochs": 5, "batch_size": 2},
        "adaptation": {"epochs": 7, "epoch_by": "target"},
    }
    told = steps(estimated(dry(api, "adapt", source=source, target=target, config=config)))
    assert told == {"style": 15, "pretrain": 5, "stylise": 3, "adapt": 21, "verdict": 9}


def test_a_job_that_cannot_fit_is_refused_with_the_numbers(
    settings: Settings, serve: Serve, source: str, target: str
) -> None:
    api = serve(settings.model_copy(update={"memory_bytes": 500_000_000}))
    body = {"source": source, "target": target}
    assert api.post("/jobs/adapt", json=body | {"preset": "smoke"}).status_code == 202
    large = {"pretrain": {"crop_px": 256, "batch_size": 8}, "segmenter": {"base_filters": 16}}
    for send in (
        lambda config: api.post("/jobs/adapt", json=body | {"preset": "smoke", "config": config}),
        lambda config: dry(api, "adapt", **body, config=config),
    ):
        refused = send(large)
        message = wrong(refused)["body.config.pretrain"]
        assert re.search(r"1\.\d\d GB .* 0\.50 GB", message)
        for field in ("crop_px", "batch_size", "accumulate"):
            assert f"pretrain.{field}" in message
        assert message in problem(refused, 422)["detail"]
        smaller = large | {"pretrain": {"crop_px": 64, "batch_size": 8, "accumulate": 8}}
        assert send(smaller).status_code in (200, 202)
    for stage, config in (
        ("style", {"style": {"crop_px": 256}}),
        ("adaptation", {"adaptation": {"crop_px": 256, "batch_size": 16}}),
    ):
        assert list(wrong(dry(api, "adapt", **body, config=config))) == [f"body.config.{stage}"]
    unlimited = serve(settings.model_copy(update={"memory_bytes": 10**12}))
    estimated(dry(unlimited, "adapt", **body, config=large))


def test_a_small_gpu_is_known_by_its_setting(settings: Settings, serve: Serve, source: str) -> None:
    body = {"source": source, "config": {"device": "cuda"}}
    unknown = serve(settings.model_copy(update={"memory_bytes": 1}))
    assert estimated(dry(unknown, "pretrain", **body))["gpu_memory_bytes"] > 0
    small = serve(settings.model_copy(update={"gpu_memory_bytes": 10**8}))
    message = wrong(dry(small, "pretrain", **body))["body.config.pretrain"]
    assert "0.10 GB" in message


def test_a_full_disk_is_refused_before_it_is_met(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    def almost_full(_: Path) -> Usage:
        return Usage(10**9, 10**9 - 50_000, 50_000)

    monkeypatch.setattr("shutil.disk_usage", almost_full)
    refused = dry(api, "pretrain", source=source)
    assert list(wrong(refused)) == ["body.config"]
    assert "0.00 GB" in problem(refused, 422)["detail"]


def test_a_source_of_ignored_pixels_only_is_refused(api: httpx.Client, target: str) -> None:
    images = {f"{n}.png": png(grey(n)) for n in range(2)}
    nothing = np.full((40, 56), 255, np.uint8)
    masks = {"0.png": png(nothing), "1.png": png(mask())}
    splits = {"train": ["0"], "val": ["1"]}
    ignored = registered(upload(api, images, masks, splits=splits, ignore_value=255))["id"]
    for refused in (
        dry(api, "pretrain", source=ignored),
        dry(api, "adapt", source=ignored, target=target),
    ):
        tells(wrong(refused), {"body.source": ("ignored", "masks")})
    # Translating images needs no masks.
    estimated(dry(api, "train-style", source=ignored, target=target))
    both = {"train": ["0", "1"]}
    partly = registered(upload(api, images, masks, splits=both, ignore_value=255))["id"]
    assert estimated(dry(api, "pretrain", source=partly))["notes"] == []


def test_a_source_of_one_class_is_taken_and_said_so(api: httpx.Client) -> None:
    images = {"0.png": png(grey(0)), "1.png": png(grey(1))}
    masks = {"0.png": png(mask(organelle=0)), "1.png": png(mask())}
    splits = {"train": ["0"], "val": ["1"]}
    source = registered(upload(api, images, masks, splits=splits))["id"]
    (note,) = estimated(dry(api, "pretrain", source=source))["notes"]
    assert "one class only, background" in note


def test_images_smaller_than_crop_and_batch_are_taken(api: httpx.Client) -> None:
    images = {"0.png": png(grey(0, 8, 20))}
    source = registered(upload(api, images, {"0.png": png(mask(8, 20))}, splits={"train": ["0"]}))
    constant = {"c.png": png(np.full((9, 8), 7, np.uint8))}
    target = registered(upload(api, constant, intensity_window=[0, 255]))
    config = {"pretrain": {"batch_size": 4}, "style": {"batch_size": 4}}
    estimated(dry(api, "adapt", source=source["id"], target=target["id"], config=config))


def test_the_memory_of_a_machine_is_that_of_its_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def limit(name: str, value: str) -> int:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(value)
        machine_memory_bytes.cache_clear()
        return machine_memory_bytes()

    monkeypatch.setattr(app.settings, "_CONTROL_GROUPS", tmp_path)
    machine_memory_bytes.cache_clear()
    physical = machine_memory_bytes()
    assert physical > 10**9
    assert limit("memory.max", "max\n") == physical
    assert limit("memory.max", "123456789\n") == 123456789
    assert limit("memory/memory.limit_in_bytes", "9223372036854771712\n") == 123456789
    machine_memory_bytes.cache_clear()


def test_in_server_mode_the_apis_own_memory_says_nothing(tmp_path: Path) -> None:
    embedded = Settings(data_folder=tmp_path)
    assert embedded.job_memory_bytes == machine_memory_bytes()
    server = Settings(data_folder=tmp_path, broker_url="redis://host/0")
    assert server.job_memory_bytes is None
    assert server.model_copy(update={"memory_bytes": 5}).job_memory_bytes == 5
