"""Errors of the framework, rendered as problems."""

import httpx

from tests.app.files import problem


def test_errors_of_the_framework_are_problems_too(api: httpx.Client) -> None:
    assert problem(api.get("/nothing"), 404)["code"] == "not_found"
    wrong_method = api.patch("/datasets")
    assert problem(wrong_method, 405)["code"] == "method_not_allowed"
    assert wrong_method.headers["allow"]
