"""HEAD, which load balancers and download tools send."""

from uuid import UUID

import httpx

from tests.app.files import grey, png, registered, upload


def test_head_is_get_without_a_body(api: httpx.Client, job_id: UUID) -> None:
    dataset = registered(upload(api, {"a.png": png(grey(1))}))["id"]
    paths = [
        "/livez",
        "/readyz",
        "/metrics",
        "/docs",
        "/datasets",
        f"/datasets/{dataset}",
        f"/datasets/{dataset}/images/0",
        f"/datasets/{dataset}/labels",
        "/jobs",
        f"/jobs/{job_id}",
        f"/jobs/{job_id}/report",
        "/models",
        "/nothing",
    ]
    for path in paths:
        got, head = api.get(path), api.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
        if path != "/metrics":  # whose numbers have changed
            assert head.headers["content-length"] == str(len(got.content)), path


def test_head_of_a_stream_ends(api: httpx.Client, job_id: UUID) -> None:
    head = api.head(f"/jobs/{job_id}/events")
    assert head.status_code == 200
    assert head.headers["content-type"].startswith("text/event-stream")


def test_head_changes_nothing(api: httpx.Client, job_id: UUID) -> None:
    assert api.head(f"/jobs/{job_id}/cancel").status_code == 405
    assert api.get(f"/jobs/{job_id}").json()["state"] == "queued"
