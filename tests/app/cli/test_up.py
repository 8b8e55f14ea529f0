"""The socket that `stylefilter up` listens on, and settings that it cannot use."""

import asyncio
import socket

import pytest
import typer
from typer.testing import CliRunner

from app.cli.main import cli
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


def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STYLEFILTER_DATABASE_URL", "postgresql://me:hidden@127.0.0.1:1/cells")
    result = CliRunner().invoke(cli, ["migrate"], env={"COLUMNS": "500"})
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert "127.0.0.1:1/cells" in result.output
    assert "STYLEFILTER_DATABASE_URL" in result.output
    assert "hidden" not in result.output


@pytest.mark.parametrize("command", ["migrate", "up"])
def test_a_wrong_variable_is_named_with_its_value(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("STYLEFILTER_DEVICE", "gpu")
    result = CliRunner().invoke(cli, [command], env={"COLUMNS": "500"})
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert "STYLEFILTER_DEVICE is 'gpu'" in result.output
