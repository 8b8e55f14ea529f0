"""The commands of `stylefilter`, and what their help explains."""

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from app.cli.main import cli

COMMANDS = {
    "up",
    "migrate",
    "demo",
    "benchmark",
    "count-mistakes",
    "datasets compare",
    "datasets list",
    "datasets register",
    "datasets report",
    "datasets fetch openorganelle",
    "datasets sources",
    "jobs probe",
    "jobs verdict",
    "jobs watch",
    "labels derive",
    "labels export",
    "labels import",
    "labels next",
    "measure training",
    "table",
    "measure claims",
    "measure data",
    "measure streams",
}


def paths(command: object, prefix: str = "") -> set[str]:
    """The full names of all commands that do something."""
    inner = getattr(command, "commands", {})
    return (
        {prefix}
        if not inner
        else {
            path for name, one in inner.items() for path in paths(one, f"{prefix} {name}".strip())
        }
    )


def test_each_command_is_there_and_explains_every_option() -> None:
    assert paths(get_command(cli)) == COMMANDS
    for path in COMMANDS:
        command = get_command(cli)
        for name in path.split():
            command = command.commands[name]  # type: ignore[attr-defined]
        assert command.help
        silent = [option.name for option in command.params if not getattr(option, "help", None)]
        assert silent == [], path


@pytest.mark.parametrize("name", ["demo", "benchmark"])
def test_the_help_says_what_a_folder_holds(name: str) -> None:
    shown = CliRunner().invoke(cli, [name, "--help"]).output
    for word in ("images/", "masks/", "meta.json", "pixel_size_nm"):
        assert word in shown
