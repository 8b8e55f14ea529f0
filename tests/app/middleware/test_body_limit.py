"""Bodies whose declared length is too large, or no number."""

import socket
from uuid import uuid4

import httpx

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
