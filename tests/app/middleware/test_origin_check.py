"""Changes that web pages of other sites make a browser ask for."""

from uuid import uuid4

import httpx
import pytest

from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.files import grey, png, problem, registered, upload

FOREIGN = [
    {"origin": "http://evil.example", "sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "a word of a later browser"},
    {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
    {"origin": "http://evil.example"},
    {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
    {"origin": "http://evil.example:8000"},
    {"origin": "http://127.0.0.1.evil.example"},
    {"origin": "http://evil.example@127.0.0.1"},
    {"origin": "http://127.0.0.1:3000"},
    {"origin": "http://127.0.0.1"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "127.0.0.1"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_changes_nothing(api: httpx.Client, headers: dict[str, str]) -> None:
    image = {"images": ("a.png", png(grey(1)))}
    metadata = '{"name": "x", "class_names": ["a", "b"], "pixel_size_nm": 4}'
    stored = api.post("/datasets", data={"metadata": metadata}, files=image, headers=headers)
    refused = problem(stored, 403)
    assert refused["code"] == "origin_not_allowed"
    assert "STYLEFILTER_ALLOWED_HOSTS" in refused["detail"]
    assert api.get("/datasets").json()["items"] == []
    dataset = registered(upload(api, {"a.png": png(grey(1))}))["id"]
    path = f"/datasets/{dataset}"
    problem(api.delete(path, headers=headers), 403)
    problem(api.post(f"{path}/labels/derive", headers=headers), 403)
    problem(api.put(f"{path}/labels", json={"labels": []}, headers=headers), 403)
    problem(api.patch(f"/jobs/{uuid4()}", json={"priority": 1}, headers=headers), 403)
    problem(api.post(f"/jobs/{uuid4()}/cancel", headers=headers), 403)
    problem(api.post("/predict", files=image, headers=headers), 403)
    # Without the right to read the answer, the page learns nothing from these.
    assert api.get(path, headers=headers).status_code == 200
    assert api.head(path, headers=headers).status_code == 200


def test_own_pages_and_programs_are_answered(api: httpx.Client) -> None:
    port = api.base_url.port
    for headers in (
        {},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin"},
        {"origin": f"http://127.0.0.1:{port}"},
        {"origin": f"http://127.0.0.1:{port}", "sec-fetch-site": "same-origin"},
        # A proxy calls the API by another name, or by the same one at another port.
        {"origin": "http://localhost:8443", "sec-fetch-site": "same-origin"},
        {"origin": "https://localhost:8443"},
        {"origin": "http://127.0.0.1:8443", "host": "127.0.0.1"},
    ):
        answer = api.post(f"/jobs/{uuid4()}/cancel", headers=headers)
        assert problem(answer, 404)["code"] == "not_found", headers


def test_origins_are_allowed_with_hosts(settings: Settings, serve: Serve) -> None:
    path = f"/jobs/{uuid4()}/cancel"
    named = serve(settings.model_copy(update={"allowed_hosts": ("127.0.0.1", "em.example")}))
    problem(named.post(path, headers={"origin": "https://EM.example:8443"}), 404)
    problem(named.post(path, headers={"origin": "https://other.example"}), 403)
    every = serve(settings.model_copy(update={"allowed_hosts": ("*",)}))
    problem(every.post(path, headers={"origin": "https://any.example"}), 404)
    problem(every.post(path, headers={"origin": "null"}), 403)
    problem(every.post(path, headers={"sec-fetch-site": "cross-site"}), 403)
