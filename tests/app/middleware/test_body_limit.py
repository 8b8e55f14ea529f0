"""Bodies whose declared length is too large, or no number."""

import socket
from uuid import uuid4

import httpx
import pytest

from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.files import problem
from tests.processes import DEADLINE_SECONDS


def raw(api: httpx.Client, length: str, request: str = "POST /jobs/adapt") -> bytes:
    """The answer to a request that declares a length and sends nothing."""
    address = (api.base_url.host, api.base_url.port)
    head = f"{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    head += f"content-length: {length}\r\n\r\n"
    with socket.create_connection(address, timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(head.encode())
        return b"".join(iter(lambda: connection.recv(1000), b""))


def test_a_body_that_declares_too_much_is_not_waited_for(api: httpx.Client) -> None:
    labels = f"/datasets/{uuid4()}/labels"
    limits = {"POST /jobs/adapt": 8 << 20, f"PUT {labels}": 64 << 20}
    for request, limit in limits.items():
        answer = raw(api, str(limit + 1), request)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"application/problem+json" in answer
        assert b'"code": "too_large"' in answer
        assert f"{limit} bytes".encode() in answer


def test_a_length_that_is_no_number_is_no_crash(api: httpx.Client) -> None:
    for length in ("-5", "1e3", "\u00b2"):
        assert raw(api, length).startswith(b"HTTP/1.1 400 ")
    assert api.get("/livez").status_code == 200


@pytest.mark.parametrize("prefix", ["", "/em"])
def test_the_limits_are_those_of_the_routes_below_a_prefix_too(
    settings: Settings, serve: Serve, prefix: str
) -> None:
    api = serve(settings.model_copy(update={"max_upload_bytes": 9 << 20}), prefix)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for size, status in (((8 << 20) + 1, 400), ((9 << 20) + 1, 413)):
        problem(api.post("/datasets", content=bytes(size), headers=headers), status)
    labels = f"/datasets/{uuid4()}/labels"
    assert b"67108864 bytes" in raw(api, str((64 << 20) + 1), f"PUT {labels}")
