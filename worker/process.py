"""The start of a process that runs one attempt of a job; free of torch."""

import faulthandler
import logging
import os
import signal
from threading import Event
from uuid import UUID

from worker.exits import Exit
from worker.parent import when_parent_ends


def told_to_stop(job_id: UUID) -> Event:
    """Prepare this process to run a job, and return the event that tells it to stop.

    The process writes log lines that name the job, leaves its stack in the log if native code
    crashes, and ends with the worker that started it.
    """
    faulthandler.enable()
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s %(name)s job={job_id} %(message)s"
    )
    when_parent_ends(lambda: os._exit(Exit.ORPHANED))
    stopping = Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    return stopping
