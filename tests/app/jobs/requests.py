"""Requests for jobs over HTTP."""

from typing import Any

import httpx


def submit(api: httpx.Client, kind: str, **body: Any) -> httpx.Response:
    return api.post(f"/jobs/{kind}", json=body)


def accepted(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/jobs/{job['id']}"
    return job
