"""Errors of the framework, rendered as problems."""

from uuid import uuid4

import httpx

from tests.app.files import problem


def test_errors_of_the_framework_are_problems_too(api: httpx.Client) -> None:
    assert problem(api.get("/nothing"), 404)["code"] == "not_found"
    wrong_method = api.patch("/datasets")
    assert problem(wrong_method, 405)["code"] == "method_not_allowed"


def test_all_methods_of_a_path_are_named(api: httpx.Client) -> None:
    methods = {
        "/datasets": {"GET", "HEAD", "POST"},
        f"/datasets/{uuid4()}": {"GET", "HEAD", "DELETE"},
        f"/datasets/{uuid4()}/labels": {"GET", "HEAD", "PUT"},
        f"/jobs/{uuid4()}": {"GET", "HEAD", "PATCH"},
        f"/jobs/{uuid4()}/cancel": {"POST"},
        "/predict": {"POST"},
        "/livez": {"GET", "HEAD"},
    }
    for path, expected in methods.items():
        refused = api.request("TRACE", path)
        problem(refused, 405)
        assert set(refused.headers["allow"].split(", ")) == expected, path
