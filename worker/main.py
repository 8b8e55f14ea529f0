"""The worker process: Celery with one task. ``python -m worker.main``.

Two threads supervise: one the process of a job that trains, one that of a registration.
"""

import argparse
import logging
import os
import signal

from celery import Celery, signals

from app.jobs.queue import RUN_JOB, make_celery, queue_of
from app.settings import Settings, WrongSetting, read_settings
from worker.parent import when_parent_ends
from worker.tasks import JobRunner


def make_worker(settings: Settings) -> Celery:
    """Return Celery with the task ``run_job(id)``, which says that a job waits."""
    runner = JobRunner(settings)
    celery = make_celery(settings)
    celery.task(runner.run_job, name=RUN_JOB)
    # weak=False: Celery would otherwise forget the bound method at once.
    signals.worker_shutting_down.connect(lambda **_: runner.stop(), weak=False)
    signals.worker_shutdown.connect(lambda **_: runner.close(), weak=False)
    return celery


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m worker.main",
        description="Run jobs of the service, one at a time. Environment variables configure it; "
        "STYLEFILTER_LANES names the lanes from which this worker takes jobs, and "
        "docs/operating.md lists the others.",
    )
    parser.add_argument(
        "--end-with-parent", action="store_true", help="stop when standard input closes"
    )
    if parser.parse_args().end_with_parent:
        when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    options = ["--pool=threads", "--concurrency=2", "--loglevel=INFO"]
    # Workers need not know each other: the database hands out the jobs.
    options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    try:
        settings = read_settings()
    except WrongSetting as error:
        parser.error(str(error))
    options += ["--queues", ",".join(map(queue_of, settings.lanes))]
    make_worker(settings).worker_main(["worker", *options])


if __name__ == "__main__":
    main()
