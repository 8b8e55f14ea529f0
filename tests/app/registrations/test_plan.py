"""Requests for public cells: which places they may name, and what they become."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from app.datasets.schemas import OpenOrganelleCreate
from app.errors import Invalid
from app.registrations.plan import RegistrationPlan
from app.settings import Settings
from tests.models.data.openorganelle.lookalike import CELL, write_demo
from tests.models.data.openorganelle.server import served

PUBLIC = "s3://janelia-cosem-datasets"


def plan_of(**fields: Any) -> RegistrationPlan:
    wanted = {"kind": "openorganelle", "name": "demo", "cell": CELL} | fields
    return RegistrationPlan(request=OpenOrganelleCreate.model_validate(wanted))


def with_roots(settings: Settings, *roots: Path | str) -> Settings:
    return settings.model_copy(update={"data_roots": roots})


def test_a_cell_becomes_a_dataset_by_its_crops(settings: Settings, tmp_path: Path) -> None:
    write_demo(settings.data_roots[0] / "cells")  # type: ignore[operator]
    plan = plan_of(at="cells", crops=[1, 3], tile_px=16)
    again = RegistrationPlan.model_validate(plan.model_dump(mode="json"))
    assert again == plan
    request, inputs = again.read(settings, tmp_path)
    assert (request.name, request.pixel_size_nm, request.tile_px) == ("demo", 4.0, 16)
    assert request.class_names[2] == "mito"
    assert {name: len(names) for name, names in (request.groups or {}).items()} == {
        "crop1": 10, "crop3": 5
    }  # fmt: skip
    assert [each.name for each in inputs.images] == ["images/crop1", "images/crop3"]


def test_crops_that_are_left_out_are_told(settings: Settings, tmp_path: Path) -> None:
    write_demo(settings.data_roots[0] / "cells")  # type: ignore[operator]
    _, inputs = plan_of(at="cells").read(settings, tmp_path)
    (passed_over,) = inputs.passed_over
    assert passed_over.startswith("crop10 (")


def test_crops_that_cannot_be_read_are_named(settings: Settings, tmp_path: Path) -> None:
    write_demo(settings.data_roots[0] / "cells")  # type: ignore[operator]
    with pytest.raises(Invalid) as refused:
        plan_of(at="cells", crops=[1, 77, 78]).read(settings, tmp_path)
    assert [item.where for item in refused.value.errors] == ["crop77", "crop78"]


def test_a_copy_on_a_web_server_is_read_below_a_root(settings: Settings, tmp_path: Path) -> None:
    write_demo(tmp_path / "cells")
    with served(tmp_path) as server:
        allowed = with_roots(settings, f"{server.url}/cells")
        for at in (".", f"{server.url}/cells", f"{server.url}/cells/{CELL}"):
            _, inputs = plan_of(at=at, crops=[2]).read(allowed, tmp_path)
            assert len(inputs.images) == 1
        for at in (f"{server.url}/other", "http://169.254.169.254/cells", f"{server.url}/cells2"):
            with pytest.raises(Invalid):
                plan_of(at=at, crops=[2]).check(allowed)
        assert not [key for key, _ in server.sent if not key.startswith("cells/")]


@pytest.mark.parametrize("at", ["..", "/etc", "../outside", "cells\0", "file:///etc", PUBLIC, None])
def test_no_place_outside_of_the_roots_is_read(at: str | None, settings: Settings) -> None:
    write_demo(settings.data_roots[0].parent / "outside")  # type: ignore[union-attr]
    with pytest.raises(Invalid) as refused:
        plan_of(at=at).check(settings)
    assert [item.where for item in refused.value.errors] == ["body.at"]


def test_the_root_that_holds_the_cell_is_found(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_demo(tmp_path / "cells")
    roots = with_roots(settings, tmp_path / "empty", tmp_path / "cells")
    plan_of(at=".").check(roots)
    with pytest.raises(Invalid, match=CELL):
        plan_of(at=".").check(with_roots(settings, tmp_path / "empty"))


def test_the_public_bucket_is_read_if_the_operator_named_it(settings: Settings) -> None:
    plan_of().check(with_roots(settings, f"{PUBLIC}/"))


def test_a_request_for_a_cell_gets_a_job(settings: Settings, api: httpx.Client) -> None:
    write_demo(settings.data_roots[0] / "cells")  # type: ignore[operator]
    wanted = {"kind": "openorganelle", "name": "demo", "cell": CELL, "at": "cells"}
    accepted = api.post("/datasets", json=wanted)
    assert accepted.status_code == 202
    assert accepted.json()["kind"] == "register"
    again = api.post("/datasets", json=wanted)
    assert again.json()["id"] == accepted.json()["id"]


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"kind": "idr"}, "body.kind"),
        ({"cell": "../x"}, "body.cell"),
        ({"classes": "mine.yaml"}, "body.classes"),
        ({"class_names": ["a", "b"]}, "body.class_names"),
        ({"at": "elsewhere"}, "body.at"),
        ({"name": "a\nb"}, "body.name"),
    ],
)
def test_a_wrong_request_for_a_cell_is_refused_at_once(
    fields: dict[str, Any], where: str, api: httpx.Client
) -> None:
    wanted = {"kind": "openorganelle", "name": "demo", "cell": CELL} | fields
    refused = api.post("/datasets", json=wanted)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["where"].startswith(where)
