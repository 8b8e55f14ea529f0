"""Sends webhooks: POST requests that tell the URL of a job about each change of the job's state.

The events of a job are sent in their order, and each is sent again until its receiver has answered
with a status of 200 to 299. Requests are signed as https://www.standardwebhooks.com says. Each API
process runs these threads; a thread takes a delivery by a conditional UPDATE, so many may run at
once. An event may still arrive twice, with the same `webhook-id`: a process may be lost after the
receiver has answered and before the answer is noted.
"""

import base64
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Literal
from uuid import UUID

import httpx
from prometheus_client import Counter
from pydantic import BaseModel, ValidationError
from sqlalchemy import delete, exists, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import aliased

from app.columns import stored_object
from app.database import Database, now_plus
from app.tables import Job, JobEvent, JobState, WebhookDelivery
from app.webhooks import targets
from app.webhooks.targets import Answer

logger = logging.getLogger(__name__)

_THREADS = 4
_POLL_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_TRY_SECONDS = 15.0
_TAKEN_SECONDS = 60.0
"""The time for which a delivery is reserved for the thread that took it. A try takes less, so after
this time the thread is lost, and another may take the delivery."""
_FIRST_PAUSE_SECONDS = 10.0
_TRIES = 14
"""The pauses between tries double, so the last try comes 23 hours after the first."""
_LONGEST_ASKED_SECONDS = 3600.0
"""The longest pause that is granted to a receiver that asks for one."""
_ASKS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_BATCH = 20

TRIES = Counter(
    "stylefilter_webhook_tries_total",
    "Tries to deliver a webhook, by what came of them; gone: its job is told of no more.",
    ["outcome"],
    registry=None,
)
for _outcome in ("delivered", "retried", "given_up", "gone"):
    TRIES.labels(_outcome)  # each series begins at 0, because a rate does not see its first value


class JobStateEvent(BaseModel):
    """The body of a webhook."""

    type: Literal["job.state"] = "job.state"
    event: int
    job: UUID
    state: JobState
    attempt: int
    code: str | None = None
    message: str | None = None
    created_at: datetime


@dataclass(frozen=True)
class _Problem:
    """Says why a receiver has not taken a delivery."""

    words: str
    gone: bool = False
    """The receiver wants no further event of the job."""
    asked_seconds: float = 0
    """The pause that the receiver asked for."""


@dataclass(frozen=True)
class _Delivery:
    """A delivery that this thread has taken; ``attempts`` counts its tries with this one."""

    attempts: int
    url: str
    told: JobStateEvent

    @property
    def id(self) -> str:
        """Return the id of the message, the same for all tries.

        The id holds the job too, because a new database counts events from 1 again.
        """
        return f"evt_{self.told.job.hex}_{self.told.event}"


class Webhooks:
    """Runs the threads that send webhooks."""

    def __init__(
        self,
        database: Database,
        secret: bytes,
        allowed_hosts: Collection[str],
        *,
        try_seconds: float = _TRY_SECONDS,
    ) -> None:
        self._database = database
        self._secret = secret
        self._allowed_hosts = frozenset(allowed_hosts)
        self._try_seconds = try_seconds
        self._tls = httpx.create_ssl_context()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"webhooks-{n}", daemon=True)
            for n in range(_THREADS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        end = time.monotonic() + _CLOSE_SECONDS
        for thread in self._threads:
            thread.join(timeout=max(0.0, end - time.monotonic()))

    def deliver(self) -> bool:
        """Try to send the next delivery; return False if none is due."""
        delivery = self._take()
        if delivery is None:
            return False
        try:
            problem = self._send(delivery)
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
            problem = _Problem(f"{type(error).__name__}: {error}")
        self._settle(delivery, problem)
        return True

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                busy = self.deliver()
            except SQLAlchemyError as error:
                # The database may be away for a while; the next round tries again.
                logger.warning("webhooks_failed error=%s", error)
                busy = False
            if not busy:
                self._stop.wait(_POLL_SECONDS)

    def _take(self) -> _Delivery | None:
        """Take a delivery that is due, and move its time on so that no other thread takes it."""
        earlier, earlier_event = aliased(WebhookDelivery), aliased(JobEvent)
        waits_for_another = exists().where(
            earlier_event.job_id == JobEvent.job_id,
            earlier_event.id < JobEvent.id,
            earlier.event_id == earlier_event.id,
        )
        query = (
            select(WebhookDelivery.attempts, JobEvent, Job.webhook_url)
            .join(JobEvent, JobEvent.id == WebhookDelivery.event_id)
            .join(Job, Job.id == JobEvent.job_id)
            .where(WebhookDelivery.next_at <= now_plus(), ~waits_for_another)
            .order_by(WebhookDelivery.next_at)
            .limit(_BATCH)
        )
        with self._database.reading() as session:
            due = session.execute(query).all()
        for attempts, event, url in due:
            if self._change(event.id, attempts, _TAKEN_SECONDS, attempts=attempts + 1):
                assert url is not None  # only a job with one has deliveries
                told = _told(event)
                if told is not None:
                    return _Delivery(attempts + 1, url, told)
                logger.warning("webhook_unreadable job=%s event=%s", event.job_id, event.id)
                self._remove(event.id)
        return None

    def _send(self, delivery: _Delivery) -> _Problem | None:
        """Send a delivery; return None if the receiver has taken it, else the problem."""
        end = time.monotonic() + self._try_seconds
        receiver = targets.find(delivery.url, self._allowed_hosts)
        body = delivery.told.model_dump_json(exclude_none=True).encode()
        timestamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "stylefilter-service",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._secret, delivery.id, timestamp, body),
        }
        seconds_left = end - time.monotonic()  # the name server took a part of them
        answer = receiver.post(body, headers, tls=self._tls, seconds=seconds_left)
        return _problem(answer)

    def _settle(self, delivery: _Delivery, problem: _Problem | None) -> None:
        event, attempts = delivery.told.event, delivery.attempts
        if problem is None:
            self._remove(event)
            TRIES.labels("delivered").inc()
            return
        if problem.gone:
            outcome = "gone"
            self._forget(delivery.told.job)
        elif attempts >= _TRIES:
            outcome = "given_up"
            self._remove(event)
        else:
            outcome = "retried"
            pause = _FIRST_PAUSE_SECONDS * 2 ** (attempts - 1)
            asked = min(problem.asked_seconds, _LONGEST_ASKED_SECONDS)
            self._change(event, attempts, max(pause, asked))
        TRIES.labels(outcome).inc()
        logger.warning(
            "webhook_%s job=%s event=%s attempts=%s error=%s",
            outcome,
            delivery.told.job,
            event,
            attempts,
            problem.words,
        )

    def _change(self, event: int, seen_attempts: int, pause: float, **values: int) -> bool:
        """Put a delivery off; return False if another thread has taken it since."""
        statement = (
            update(WebhookDelivery)
            .where(WebhookDelivery.event_id == event, WebhookDelivery.attempts == seen_attempts)
            .values(next_at=now_plus(pause), **values)
            .returning(WebhookDelivery.event_id)
        )
        with self._database.session() as session:
            changed = session.scalar(statement)
            session.commit()
        return changed is not None

    def _remove(self, event: int) -> None:
        with self._database.session() as session:
            session.execute(delete(WebhookDelivery).where(WebhookDelivery.event_id == event))
            session.commit()

    def _forget(self, job: UUID) -> None:
        """Delete the URL of a job and all deliveries that wait for it."""
        events = select(JobEvent.id).where(JobEvent.job_id == job)
        with self._database.session() as session:
            # This UPDATE comes first: it waits for any transaction that changes the job's state,
            # and the DELETE then sees the delivery which that transaction has added.
            session.execute(update(Job).where(Job.id == job).values(webhook_url=None))
            session.execute(delete(WebhookDelivery).where(WebhookDelivery.event_id.in_(events)))
            session.commit()


def _told(event: JobEvent) -> JobStateEvent | None:
    """Return the body that tells of a stored event; None if this version cannot read the event."""
    own = {"event": event.id, "job": event.job_id, "created_at": event.created_at}
    try:
        return JobStateEvent.model_validate(stored_object(event.data) | own)
    except ValidationError:
        return None


def _problem(answer: Answer) -> _Problem | None:
    if 200 <= answer.status < 300:
        return None
    asked = 0.0
    if answer.status in _ASKS and answer.retry_after is not None:
        asked = _seconds(answer.retry_after)
    gone = answer.status == HTTPStatus.GONE
    return _Problem(f"the receiver answered {answer.status}", gone, asked)


def _seconds(retry_after: str) -> float:
    """Read the header Retry-After, which holds seconds or a date; return 0 if it holds neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        return 0
    # HTTP dates are in GMT, even if they name no zone.
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message, as the header `webhook-signature` holds it."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    digest = hmac.digest(secret, signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"
