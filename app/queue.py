"""The doorbell: sends a job's id to the workers after commit. All of Celery's settings.

The row is the truth about a job; a message may be lost or come twice without harm, so messages are
acknowledged early, nothing is stored as a result, and a failed send is only logged: the reconciler
announces again.
"""

import logging
from pathlib import Path
from uuid import UUID

from celery import Celery
from kombu.exceptions import OperationalError

from app.settings import Settings

logger = logging.getLogger(__name__)

RUN_JOB = "stylefilter.run_job"


def make_celery(settings: Settings) -> Celery:
    """Celery for either side of the broker; the worker adds its task to it."""
    broker = settings.broker
    app = Celery("stylefilter", broker=broker, set_as_current=False)
    app.conf.update(
        task_default_queue="jobs",
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        task_publish_retry=False,  # a request must not wait for a broker that is down
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=4,
        broker_transport_options=_transport_options(broker, settings.data_folder / "broker"),
    )
    if broker.startswith(("redis://", "rediss://")):
        app.conf.worker_disable_prefetch = True
    return app


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


class JobQueue:
    """Announces jobs to whoever listens."""

    def __init__(self, settings: Settings) -> None:
        self._celery = make_celery(settings)

    def announce(self, job_id: UUID) -> None:
        """Ring once. A broker that is down is logged, not raised: the job is safe in its row."""
        try:
            self._celery.send_task(RUN_JOB, args=[str(job_id)])
        except (OperationalError, OSError) as error:
            logger.warning("announce_failed job=%s error=%s", job_id, error)

    def problem(self) -> str | None:
        """Why the broker cannot be reached, or None."""
        try:
            with self._celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=4)
        except (OperationalError, OSError) as error:
            return f"broker is not reachable: {error}"
        return None

    def close(self) -> None:
        self._celery.close()
