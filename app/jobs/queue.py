"""Announces jobs to the workers through Celery, and holds all of Celery's settings.

A message only says that a job waits; the worker reads from the database which job to take. So a
message may be lost or come twice without harm: messages are acknowledged before the job runs, no
result is stored, and a message that cannot be sent is only logged. The reconciler announces waiting
jobs again.
"""

import json
import logging
from pathlib import Path
from time import time_ns
from typing import Any
from uuid import UUID, uuid4

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport import filesystem

from app.settings import Settings
from app.tables import Lane
from models.data.files import written_aside

logger = logging.getLogger(__name__)

RUN_JOB = "stylefilter.run_job"


def make_celery(settings: Settings) -> Celery:
    """Make the Celery application that sends messages, or to which the worker adds its task."""
    broker = settings.broker
    app = Celery("stylefilter", broker=broker, set_as_current=False)
    app.conf.update(
        task_default_queue=queue_of(Lane.CPU),
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=4,
        broker_transport_options=_transport_options(broker, settings.data_folder / "broker"),
    )
    if broker.startswith("filesystem://"):
        app.conf.broker_transport = f"{__name__}:FolderTransport"
    if broker.startswith(("redis://", "rediss://")):
        app.conf.worker_disable_prefetch = True
    return app


def queue_of(lane: Lane) -> str:
    """Return the name of a lane's queue in the broker."""
    return f"jobs.{lane}"


def _transport_options(broker: str, folder: Path) -> dict[str, object]:
    if broker.startswith("filesystem://"):
        for name in ("messages", "control", "processed"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return {
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "control_folder": str(folder / "control"),
            "processed_folder": str(folder / "processed"),
            "polling_interval": 0.5,
        }
    if broker.startswith(("redis://", "rediss://")):
        return {"socket_timeout": 10, "socket_connect_timeout": 4, "health_check_interval": 20}
    return {}


class FolderChannel(filesystem.Channel):
    """Keeps messages in files as kombu's channel does, but writes whole files and skips torn ones.

    kombu writes a message under its final name, so a worker may read half of it. A worker that
    reads half a message ends, and so does a sender that reads half an exchange.
    """

    def _put(self, queue: str, payload: object, **_: Any) -> None:  # type: ignore[override] # kombu's own two differ
        # The time is padded with zeros, because messages are read in the order of their names.
        path = Path(self.data_folder_out) / f"{time_ns():020d}_{uuid4().hex}.{queue}.msg"
        with written_aside(path) as draft:
            draft.write_text(json.dumps(payload))

    def _get(self, queue: str, timeout: float | None = None) -> object:  # noqa: ARG002 - kombu's
        while True:
            try:
                return super()._get(queue)
            except ValueError as error:
                logger.warning("message_torn queue=%s error=%s", queue, error)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except ValueError as error:
            logger.warning("exchange_torn exchange=%s error=%s", exchange, error)
            self._exchange_file(exchange).unlink(missing_ok=True)
            super()._queue_bind(exchange, routing_key, pattern, queue)


class FolderTransport(filesystem.Transport):
    """Runs kombu's ``filesystem://`` transport with the channel above."""

    Channel = FolderChannel


class JobQueue:
    """Announces jobs to the workers."""

    def __init__(self, settings: Settings) -> None:
        self._celery = make_celery(settings)
        # A request must not wait for a broker that is down.
        self._celery.conf.broker_transport_options["max_retries"] = 0

    def announce(self, job_id: UUID, lane: str) -> None:
        """Send one message that a job waits in this lane.

        If the broker is down this is logged and not raised, because the job is safe in its row.
        """
        try:
            self._celery.send_task(RUN_JOB, args=[str(job_id)], queue=queue_of(Lane(lane)))
        except (OperationalError, OSError) as error:
            logger.warning("announce_failed job=%s error=%s", job_id, error)

    def problem(self) -> str | None:
        """Return the reason why the broker cannot be reached, or None if it can."""
        try:
            with self._celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=0, timeout=4)
        except (OperationalError, OSError) as error:
            logger.warning("broker_unreachable error=%s", error)
            return "the broker cannot be reached: the log of the API holds the reason"
        return None

    def close(self) -> None:
        self._celery.close()
