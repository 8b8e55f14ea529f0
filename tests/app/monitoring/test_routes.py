"""Health checks of the API."""

from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.files import problem


def test_alive_and_ready(api: httpx.Client) -> None:
    assert api.get("/livez").json() == {"status": "alive"}
    response = api.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"ready": True, "problems": {}})


def test_not_ready_without_a_broker(settings: Settings, serve: Serve) -> None:
    api = serve(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    response = api.get("/readyz")
    assert response.status_code == 503
    assert response.json()["ready"] is False
    assert list(response.json()["problems"]) == ["broker"]
    assert "127.0.0.1" not in response.text
    assert api.get("/livez").status_code == 200


def test_not_ready_without_a_schema(settings: Settings, serve: Serve, tmp_path: Path) -> None:
    api = serve(settings.model_copy(update={"database_url": f"sqlite:///{tmp_path}/new.db"}))
    response = api.get("/readyz")
    assert response.status_code == 503
    assert list(response.json()["problems"]) == ["database"]
    assert "stylefilter migrate" in response.json()["problems"]["database"]
    refused = problem(api.get("/datasets"), 503)
    assert refused["code"] == "database_down"
    assert "/readyz" in refused["detail"]


def test_not_ready_without_a_database_server(
    settings: Settings, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    url = "postgresql+psycopg://nobody:secret@127.0.0.1:1/none"
    api = serve(settings.model_copy(update={"database_url": url}))
    response = api.get("/readyz")
    assert response.status_code == 503
    assert list(response.json()["problems"]) == ["database"]
    assert "secret" not in response.text
    assert "127.0.0.1" not in response.text
    assert "127.0.0.1" in caplog.text
    refused = api.get("/jobs")
    assert problem(refused, 503)["code"] == "database_down"
    assert refused.headers["retry-after"] == "5"


def test_not_ready_without_the_data_folder(
    api: httpx.Client, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    # A file in its place refuses root too, which permissions would not.
    incoming = settings.data_folder / "incoming"
    incoming.rmdir()
    incoming.write_bytes(b"")
    response = api.get("/readyz")
    assert response.status_code == 503
    assert list(response.json()["problems"]) == ["storage"]
    assert str(settings.data_folder) not in response.text
    assert str(settings.data_folder) in caplog.text
