"""What no route understands is refused by name, on every route."""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from app.main import create_app
from app.middleware.strict_route import StrictRoute
from app.settings import Settings
from tests.app.files import METADATA, grey, mask, png, problem, registered, upload, wrong

APP = create_app(Settings())
PATHS: dict[str, dict[str, Any]] = APP.openapi()["paths"]
OPERATIONS = [(method.upper(), path) for path, methods in PATHS.items() for method in methods]
VALUES = {"n": "0", "name": "report.html"}


@pytest.fixture
def database_url(tmp_path: Path, sqlite_template: Path) -> str:
    """One engine: a refusal happens before the database is reached."""
    path = tmp_path / "stylefilter.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


def address(path: str) -> str:
    """The path of a route, with values that fit its parameters."""
    parts = (VALUES.get(p[1:-1], str(uuid4())) if p.startswith("{") else p for p in path.split("/"))
    return "/".join(parts)


def body_types(method: str, path: str) -> set[str]:
    return set(PATHS[path][method.lower()].get("requestBody", {}).get("content", {}))


def test_every_route_is_strict() -> None:
    routes = [route.original_route for route in iter_route_contexts(APP.routes)]
    api = [route for route in routes if isinstance(route, APIRoute)]
    assert len(api) >= 30
    assert [route.path for route in api if not isinstance(route, StrictRoute)] == []


def test_unknown_query_parameters_are_refused(api: httpx.Client) -> None:
    for method, path in OPERATIONS:
        answer = api.request(method, address(path), params={"staet": "failed", "limti": "1"})
        assert wrong(answer).keys() == {"query.staet", "query.limti"}, path


def test_a_parameter_may_be_given_once(api: httpx.Client) -> None:
    assert api.get("/jobs", params={"limit": 1, "state": "failed"}).status_code == 200
    twice = wrong(api.get("/jobs", params={"limit": ["1", "2"], "state": "failed"}))
    assert twice.keys() == {"query.limit"}
    steps = {"from_step": 1, "to_step": 2, "points": 3, "name": "x", "stage": "y"}
    problem(api.get(f"/jobs/{uuid4()}/metrics", params=steps), 404)
    problem(api.post("/jobs/adapt?dry_run=true", json={}), 422)


def test_an_evaluation_has_no_dry_run_that_would_store_it(api: httpx.Client) -> None:
    refused = wrong(api.post("/jobs/evaluate", params={"dry_run": "true"}, json={}))
    assert refused.keys() == {"query.dry_run"}


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/vnd.api+json", ""],
)
def test_a_body_of_another_type_is_refused(api: httpx.Client, media_type: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    pieces = {"application/offset+octet-stream"}  # of an upload, whose headers are checked first
    with_body = [each for each in OPERATIONS if body_types(*each) not in (set(), pieces)]
    assert len(with_body) >= 10
    for method, path in with_body:
        refused = api.request(method, address(path), content=b'{"a": 1}', headers=headers)
        detail = problem(refused, 415)["detail"]
        assert all(expected in detail for expected in body_types(method, path)), path


def test_types_are_read_without_case_and_parameters(api: httpx.Client) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert "body.source" in wrong(api.post("/jobs/adapt", content=b"{}", headers=headers))


def test_a_body_that_may_be_left_out(api: httpx.Client) -> None:
    dataset = registered(upload(api, {"a.png": png(grey(1))}, {"a.png": png(mask())}))["id"]
    path = f"/datasets/{dataset}/labels/derive"
    assert api.post(path).status_code == 200
    assert api.post(path, json={"min_pixels": 11}).json()["counts"]["organelle"]["absent"] == 1
    assert wrong(api.post(path, json={"min_pixels": 2**31})).keys() == {"body.min_pixels.number"}
    assert wrong(api.post("/jobs/adapt")).keys() == {"body"}


def large(item: Any) -> list[Any]:
    """So many items that a body of them is read in a thread."""
    return [item] * 200_000


@pytest.mark.parametrize(
    ("method", "path", "body", "where"),
    [
        ("POST", "/jobs/benchmark", {"excluded": large(1)}, "body.excluded"),
        ("POST", "/jobs/benchmark", {"rows": large("cut")}, "body.rows"),
        ("POST", "/jobs/adapt", {"after": large("x")}, "body.after"),
        ("POST", "/jobs/adapt", {f"field{n}": 1 for n in range(100_000)}, "body"),
        ("POST", "/jobs/adapt", {"preset": "quick" * 100_000}, "body.preset"),
        ("POST", "/jobs/adapt", {"config": large({})}, "body.config"),
        ("POST", "/datasets", METADATA | {"splits": {"train": large(1)}}, "body.splits.train.0"),
        ("POST", "/datasets", METADATA | {"groups": {"a": large(1)}}, "body.groups.a.0"),
        ("POST", "/datasets", METADATA | {"class_names": large("a")}, "body.class_names"),
        ("POST", "/datasets", METADATA | {"name": "a" * 2_000_000}, "body.name"),
        ("PATCH", f"/jobs/{UUID(int=7)}", {"priority": 10**4000}, "body.priority"),
    ],
)
def test_many_wrong_things_are_told_in_few_words(
    api: httpx.Client, method: str, path: str, body: dict[str, Any], where: str
) -> None:
    refused = api.request(method, path, json=body)
    assert where in wrong(refused)
    assert len(refused.content) < 20_000
