"""The API answers to its own names only."""

import httpx
import pytest

from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.files import problem


def test_names_of_this_machine_are_answered(api: httpx.Client) -> None:
    port = api.base_url.port
    for host in ("127.0.0.1", "localhost", "LocalHost", f"localhost:{port}", f"[::1]:{port}"):
        assert api.get("/livez", headers={"host": host}).status_code == 200, host


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example:8000",
        "[::1",
        "",
        "api",
        "evil@localhost",
        "localhost/evil",
    ],
)
def test_other_names_are_refused(api: httpx.Client, host: str) -> None:
    refused = problem(api.get("/datasets", headers={"host": host}), 421)
    assert refused["code"] == "host_not_allowed"
    assert "STYLEFILTER_ALLOWED_HOSTS" in refused["detail"]


def test_names_can_be_allowed_or_all(
    settings: Settings, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLEFILTER_ALLOWED_HOSTS", "localhost, API")
    hosts = Settings().allowed_hosts
    assert hosts == ("localhost", "api")
    named = serve(settings.model_copy(update={"allowed_hosts": hosts}))
    assert named.get("/livez", headers={"host": "api:8000"}).status_code == 200
    problem(named.get("/livez"), 421)
    every = serve(settings.model_copy(update={"allowed_hosts": ("*",)}))
    assert every.get("/livez", headers={"host": "any.example"}).status_code == 200
