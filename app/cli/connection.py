"""The connection of a command to a running service."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.markup import escape

from app.cli.console import console
from app.client.client import Client
from app.client.connection import ApiError


@contextmanager
def connected(url: str) -> Iterator[Client]:
    """Yield a client; what the service or a file refuses ends the command with the reason."""
    try:
        with Client(url) as client:
            yield client
    except (ApiError, OSError) as error:
        console.print(f"[red]Stopped:[/red] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from error
