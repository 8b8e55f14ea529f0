"""The connection of a command: a refusal ends it with the service's words."""

import pytest
import typer

from app.cli.connection import connected
from app.client.connection import ApiError


def test_a_refusal_is_shown_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, connected("http://127.0.0.1:1"):
        raise ApiError("line 2: [/red] is no label [bold]")
    assert ended.value.exit_code == 1
    assert "[/red] is no label [bold]" in capsys.readouterr().out
