"""Tells the URL of a job of its state events: signed, in their order, again until it takes them.

Signed as https://www.standardwebhooks.com says. Runs in every API process; a delivery is taken by a
conditional UPDATE, so many may run at once. An event may still arrive twice, with the same
`webhook-id`: its sender may be lost between the answer and the note of it.
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

from app.database import Database, now_plus
from app.stored import stored_object
from app.tables import Job, JobEvent, JobState, WebhookDelivery
from app.webhooks import targets
from app.webhooks.targets import Answer

logger = logging.getLogger(__name__)

_THREADS = 4
_POLL_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_TRY_SECONDS = 15.0
_TAKEN_SECONDS = 60.0
"""Longer than a try: whoever took a delivery before that is lost, and another may take it."""
_FIRST_PAUSE_SECONDS = 10.0
_TRIES = 14
"""With pauses that double, the last is 23 hours after the first."""
_LONGEST_ASKED_SECONDS = 3600.0
"""A receiver may ask for a longer pause than ours, up to this."""
_ASKS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_BATCH = 20

TRIES = Counter(
    "stylefilter_webhook_tries_total",
    "Tries to deliver a webhook, by what came of them; gone: its job is told of no more.",
    ["outcome"],
    registry=None,
)
for _outcome in ("delivered", "retried", "given_up", "gone"):
    TRIES.labels(_outcome)  # from 0 on: a rate does not see how a series begins


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
    """Why the receiver has not taken a delivery."""

    words: str
    gone: bool = False
    """Whether it wants to hear nothing more of the job."""
    asked_seconds: float = 0
    """The pause that it asked for."""


@dataclass(frozen=True)
class _Delivery:
    """A taken delivery; ``attempts`` counts this one."""

    attempts: int
    url: str
    told: JobStateEvent

    @property
    def id(self) -> str:
        """The same for all tries. The job is in it since a new database counts events anew."""
        return f"evt_{self.told.job.hex}_{self.told.event}"


class Webhooks:
    """Threads that send what is due."""

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
        """Try the delivery that is next; False if none is due."""
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
        """Push a due delivery into the future, so that nobody else sends it meanwhile."""
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
        """None when the receiver has taken it."""
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
        seconds_left = end - time.monotonic()  # less what the name server took
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
        """Put a delivery off, unless another has taken it since."""
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
        """Drop what waits for the URL of a job, and the URL."""
        events = select(JobEvent.id).where(JobEvent.job_id == job)
        with self._database.session() as session:
            # First: who is changing the job's state adds a delivery before its row can be had.
            session.execute(update(Job).where(Job.id == job).values(webhook_url=None))
            session.execute(delete(WebhookDelivery).where(WebhookDelivery.event_id.in_(events)))
            session.commit()


def _told(event: JobEvent) -> JobStateEvent | None:
    """Return what a receiver is told of a stored event; None for one that nobody can read."""
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
    return _Problem(f"it answered {answer.status}", gone, asked)


def _seconds(retry_after: str) -> float:
    """What Retry-After says: seconds, or a date; 0 if it says neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        return 0
    # A date is in GMT, however it is written.
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Of one message, as its header says it."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    digest = hmac.digest(secret, signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"
