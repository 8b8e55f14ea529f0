"""Counts requests, jobs, webhooks and published results for Prometheus.

Figures of requests are those of this process. The others are read from the database each time that
Prometheus asks, so they are right after any restart, and Prometheus has to ask only one API process
for them.
"""

from collections.abc import Iterable, Iterator
from http import HTTPMethod
from time import perf_counter
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session, aliased
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.database import Database, now_plus
from app.jobs import transitions
from app.jobs.verdicts import count_outcomes
from app.tables import (
    ACTIVE,
    Job,
    JobDependency,
    JobEvent,
    JobStage,
    JobState,
    Lane,
    Publication,
    WebhookDelivery,
)
from app.webhooks.delivery import TRIES
from models.choice.verdict import Outcome

REQUEST_SECONDS = Histogram(
    "stylefilter_http_request_duration_seconds",
    "Seconds to answer a request, by route template.",
    ["method", "route"],
    registry=None,
)
REQUESTS = Counter(
    "stylefilter_http_requests_total",
    "Requests answered, by route template and status.",
    ["method", "route", "status"],
    registry=None,
)
PREDICT_SECONDS = Histogram(
    "stylefilter_predict_duration_seconds",
    "Seconds of a prediction: decoding, waiting, networks and encoding.",
    ["stylise"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=None,
)
_FINAL = (JobState.SUCCEEDED, JobState.CANCELLED)
_METHODS = {method.value for method in HTTPMethod}


class JobCollector(Collector):
    """Reports jobs by state, the ages of the queues, and the durations of stages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        return []  # otherwise the registry would call collect(), which needs the database

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("stylefilter_jobs", "Jobs by state.", labels=["state"])
        age = GaugeMetricFamily(
            "stylefilter_queue_age_seconds",
            "Seconds for which the longest waiting job could have been taken by a worker, by lane; "
            "0 if no job waits.",
            labels=["lane"],
        )
        held = GaugeMetricFamily(
            "stylefilter_jobs_held", "Jobs that a worker holds, by lane.", labels=["lane"]
        )
        stages = SummaryMetricFamily(
            "stylefilter_stage_duration_seconds",
            "Seconds of the finished stages of jobs that succeeded or were cancelled.",
            labels=["stage"],
        )
        verdicts = GaugeMetricFamily(
            "stylefilter_verdicts",
            "Verdicts of the labels on jobs that have adapted a model, by outcome.",
            labels=["outcome"],
        )
        with self._database.reading() as session:
            by_state = select(Job.state, func.count()).group_by(Job.state)
            counts = dict(session.execute(by_state).all())
            ages = _queue_ages(session)
            by_lane = select(Job.lane, func.count()).where(
                Job.lease_until.is_not(None),  # the condition of the index ix_jobs_held
                Job.state.in_(ACTIVE),
            )
            holding = dict(session.execute(by_lane.group_by(Job.lane)).all())
            durations = session.execute(
                select(JobStage.stage, func.count(), func.sum(JobStage.seconds))
                .join(Job)
                # A counter must never fall, so failed jobs do not count: they may be retried.
                .where(JobStage.finished.is_(True), Job.state.in_(_FINAL))
                .group_by(JobStage.stage)
            ).all()
            outcomes = count_outcomes(session)
        for outcome in get_args(Outcome):
            verdicts.add_metric([outcome], outcomes.get(outcome, 0))
        for state in JobState:
            jobs.add_metric([state], counts.get(state, 0))
        for lane in Lane:
            age.add_metric([lane], ages.get(lane, 0))
            held.add_metric([lane], holding.get(lane, 0))
        for stage, count, seconds in durations:
            stages.add_metric([stage], count, seconds)
        yield from (jobs, age, held, stages, verdicts)


class DeliveryCollector(Collector):
    """Reports what waits to be delivered: webhooks, with the age of the oldest, and results."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        # The event with the lowest id is the oldest.
        first = select(func.min(WebhookDelivery.event_id)).scalar_subquery()
        oldest = select(JobEvent.created_at).where(JobEvent.id == first)
        waiting = select(func.count()).select_from(WebhookDelivery).scalar_subquery()
        results = select(func.count()).where(Publication.next_at.is_not(None)).scalar_subquery()
        query = select(waiting, oldest.scalar_subquery(), now_plus(), results)
        with self._database.reading() as session:
            count, since, now, unpublished = session.execute(query).one()
        yield GaugeMetricFamily(
            "stylefilter_webhooks_waiting", "Webhooks that wait to be delivered.", value=count
        )
        yield GaugeMetricFamily(
            "stylefilter_webhook_age_seconds",
            "Age in seconds of the oldest webhook that waits to be delivered; 0 if none waits.",
            value=(now - since).total_seconds() if since else 0,
        )
        yield GaugeMetricFamily(
            "stylefilter_results_waiting",
            "Jobs whose results wait to be published.",
            value=unpublished,
        )


def _queue_ages(session: Session) -> dict[str, float]:
    """Return, for each lane with a job that can be taken, how long one could have been taken.

    The times are in seconds, for the job that waits longest.
    """
    needed, other = aliased(JobDependency), aliased(Job)
    told = (
        select(JobEvent.created_at)
        .where(JobEvent.job_id == Job.id, JobEvent.kind == "state")
        .order_by(JobEvent.id.desc())
        .limit(1)
    )
    met = select(func.max(other.finished_at)).where(
        needed.job_id == Job.id, other.id == needed.needs_id
    )
    # A job that was made before events existed has none.
    began = func.coalesce(Job.not_before, told.scalar_subquery(), Job.created_at)
    ready = select(Job.lane, began.label("began"), met.scalar_subquery().label("met"))
    # Without MATERIALIZED PostgreSQL computes each of these times twice.
    each = ready.where(transitions.claimable()).cte("each").prefix_with("MATERIALIZED")
    since = case((each.c.met > each.c.began, each.c.met), else_=each.c.began)
    oldest = select(each.c.lane, func.min(since), now_plus()).group_by(each.c.lane)
    return {lane: (now - since).total_seconds() for lane, since, now in session.execute(oldest)}


def make_registry(database: Database) -> CollectorRegistry:
    registry = CollectorRegistry()
    for metric in (REQUEST_SECONDS, REQUESTS, PREDICT_SECONDS, TRIES):
        registry.register(metric)
    registry.register(JobCollector(database))
    registry.register(DeliveryCollector(database))
    ProcessCollector(registry=registry)
    return registry


class RequestMetrics:
    """Counts and times requests, by route template and never by path: an ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, counted = perf_counter(), 500, False

        def count() -> None:
            nonlocal counted
            if counted:
                return
            counted = True
            route = getattr(scope.get("route"), "path", "unmatched")
            # A client may send any word as its method, and must not add a series by it.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            REQUEST_SECONDS.labels(method, route).observe(perf_counter() - started)
            REQUESTS.labels(method, route, str(status)).inc()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                count()  # before the client can know that its request has been answered
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            count()
