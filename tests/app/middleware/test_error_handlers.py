"""Errors of the framework, rendered as problems."""

import asyncio
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

import app.database
from app.database import Database
from app.middleware.error_handlers import install
from app.settings import Settings
from tests.app.files import problem, wrong


def test_errors_of_the_framework_are_problems_too(api: httpx.Client) -> None:
    assert problem(api.get("/nothing"), 404)["code"] == "not_found"
    assert problem(api.get("/jobs?limit=0"), 422)["title"] == "Unprocessable Content"  # RFC 9110
    wrong_method = api.patch("/datasets")
    assert problem(wrong_method, 405)["code"] == "method_not_allowed"


def test_all_methods_of_a_path_are_named(api: httpx.Client) -> None:
    methods = {
        "/datasets": {"GET", "HEAD", "POST"},
        f"/datasets/{uuid4()}": {"GET", "HEAD", "DELETE"},
        f"/datasets/{uuid4()}/labels": {"GET", "HEAD", "PUT"},
        f"/jobs/{uuid4()}": {"GET", "HEAD", "PATCH"},
        f"/jobs/{uuid4()}/cancel": {"POST"},
        "/jobs/adapt": {"POST"},  # and no job with the id "adapt"
        "/predict": {"POST"},
        "/livez": {"GET", "HEAD"},
    }
    for path, expected in methods.items():
        refused = api.request("TRACE", path)
        problem(refused, 405)
        assert set(refused.headers["allow"].split(", ")) == expected, path


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_a_named_path_is_no_id(api: httpx.Client, method: str) -> None:
    for body in ({"priority": 1}, {"odd": 1}):
        refused = api.request(method, "/jobs/evaluate", json=body if method == "PATCH" else None)
        problem(refused, 405)
        assert refused.headers["allow"] == "POST"
    assert list(wrong(api.request(method, "/jobs/evaluat", json={"priority": 1}))) == [
        "path.job_id"
    ]


def test_a_pool_without_a_free_connection_is_busy(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.database, "_POOL_SECONDS", 0.01)
    database = Database(settings.database, connections=1)
    service = FastAPI()
    install(service)

    @service.get("/")
    def ask() -> None:
        with database.reading() as session, database.reading() as another:
            session.execute(select(1))
            another.execute(select(1))

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(service, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/")

    refused = asyncio.run(main())
    database.close()
    assert problem(refused, 503)["code"] == "busy"
    assert int(refused.headers["retry-after"]) > 0
