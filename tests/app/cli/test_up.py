"""The socket that `stylefilter up` listens on."""

import asyncio
import socket

import pytest
import typer

from app.cli.up import listen


def test_answers_on_a_kept_connection_are_sent_at_once() -> None:
    """Nagle's algorithm is off on accepted connections: else an answer waits for 40 ms."""
    options: list[int] = []

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        options.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def connect() -> None:
        listener = listen("127.0.0.1", 0)
        async with await asyncio.start_server(note, sock=listener):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            assert await reader.read() == b""
            writer.close()

    asyncio.run(connect())
    assert options == [1]


def test_a_port_that_is_taken_is_refused() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(typer.BadParameter, match=f"127.0.0.1:{port}"):
            listen("127.0.0.1", port)
