"""What routes of several packages share."""

import httpx
import pytest

from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.files import grey, mask, png, registered, upload


@pytest.mark.parametrize("prefix", ["", "/em/service"])
def test_addresses_lead_through_a_proxy_with_a_prefix(
    settings: Settings, serve: Serve, prefix: str
) -> None:
    api = serve(settings, prefix)

    def follow(response: httpx.Response) -> None:
        location = response.headers["location"]
        name = response.json()["id"]
        assert location.startswith(f"{prefix}/")
        assert location.endswith(f"/{name}")
        assert api.get(location.removeprefix(prefix)).json()["id"] == name

    uploaded = upload(api, {"a.png": png(grey(1))}, {"a.png": png(mask())})
    source = registered(uploaded)["id"]
    follow(uploaded)
    body = {"source": source, "preset": "smoke"}
    follow(api.post("/jobs/pretrain", json=body, headers={"Idempotency-Key": "k"}))
    follow(api.post("/jobs/pretrain", json=body, headers={"Idempotency-Key": "k"}))
