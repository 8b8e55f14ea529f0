"""``stylefilter up`` starts the service, and ``stylefilter migrate`` prepares its database."""

import logging
import os
import signal
import socket
import sys
from typing import Annotated

import typer
import uvicorn
from sqlalchemy.exc import OperationalError

from app.cli.console import console
from app.cli.supervisor import WorkerProcess
from app.database import Database
from app.middleware.logs import write_log_lines
from app.settings import Settings, WrongSetting, read_settings
from app.storage import Storage

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def migrate() -> None:
    """Bring the tables of the database to the form that this version of the service needs.

    Environment variables name the database; docs/operating.md lists them.
    """
    _migrate(_settings())
    console.print("The tables of the database are up to date.")


def up(
    host: Annotated[
        str,
        typer.Option(help="The address to listen on; only this computer reaches 127.0.0.1."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The port to listen on; 0 stands for any free port.")
    ] = 8000,
) -> None:
    """Start the service on this computer: the API and one worker.

    The command first brings the tables of the database to the form that this version needs. Ctrl-C
    stops API and worker; jobs go on at the next start. Environment variables configure the service;
    docs/operating.md lists them.
    """
    from app.main import create_app  # other commands start faster without the web framework

    settings = _settings()
    if host not in _LOOPBACK:
        settings = _open_to(host, settings)
    write_log_lines(logging.WARNING)
    Storage(settings.data_folder)
    listener = listen(host, port)
    _migrate(settings)
    # uvicorn raises the signal that ended it once more; this handler leads to the `finally` below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    worker = WorkerProcess()
    try:
        address = f"http://{host}:{listener.getsockname()[1]}"
        console.print(
            f"StyleFilter Service runs at {address}, and {address}/docs describes its API. Ctrl-C "
            "stops it."
        )
        config = uvicorn.Config(
            lambda: create_app(settings),
            factory=True,
            log_level="warning",
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # uvicorn has shut down cleanly and raises the signal again
    finally:
        worker.stop()


def _settings() -> Settings:
    """Read the settings; BadParameter names a variable that is wrong."""
    try:
        return read_settings()
    except WrongSetting as error:
        raise typer.BadParameter(str(error)) from error


def _migrate(settings: Settings) -> None:
    """Migrate the database; BadParameter if it cannot be reached."""
    database = Database(settings.database)
    try:
        database.migrate()
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise typer.BadParameter(
            f"the database {database.url.render_as_string()} cannot be used ({reason}): check "
            "STYLEFILTER_DATABASE_URL, and whether the database runs"
        ) from error
    finally:
        database.close()


def _open_to(host: str, settings: Settings) -> Settings:
    """Warn that other computers reach the service, and let it answer to the host's name."""
    console.print(
        f"[bold red]Warning:[/] the service has no authentication, so everybody who reaches {host} "
        "can use and delete everything. Put a proxy with a login in front of it.\n"
        f"The service answers to {host} and to the host names in STYLEFILTER_ALLOWED_HOSTS."
    )
    allowed = (*settings.allowed_hosts, host.lower())
    return settings.model_copy(update={"allowed_hosts": allowed})


def listen(host: str, port: int) -> socket.socket:
    """Bind a TCP socket to the address; BadParameter if that is impossible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the socket names its protocol. Without TCP_NODELAY each
    # answer on a kept-alive connection waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise typer.BadParameter(
            f"the service cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}): choose "
            "another port with --port"
        ) from error
    return listener
