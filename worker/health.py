"""Ask the worker of this host to answer; 0 is the exit code if it does: ``-m worker.health``."""

import socket
import sys

from app.jobs.queue import make_celery
from app.settings import read_settings

_TIMEOUT_SECONDS = 8


def main() -> int:
    name = f"celery@{socket.gethostname()}"
    with make_celery(read_settings()) as celery:
        if celery.control.ping(destination=[name], timeout=_TIMEOUT_SECONDS):
            return 0
    sys.stderr.write(f"no worker answers as {name}: start one with python -m worker.main\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
