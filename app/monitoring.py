"""Prometheus: what this process saw, and what the database knows of jobs.

Job figures are read from the database at each scrape, so they are right after any restart and in
every mode; only one API process has to be scraped for them.
"""

from collections.abc import Iterable, Iterator
from http import HTTPMethod
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session, aliased
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.database import Database, now_plus
from app.jobs import transitions
from app.tables import (
    ACTIVE,
    Job,
    JobDependency,
    JobEvent,
    JobStage,
    JobState,
    Lane,
    WebhookDelivery,
)
from app.webhooks.delivery import TRIES

REQUEST_SECONDS = Histogram(
    "stylefilter_http_request_duration_seconds",
    "Time to answer a request, by route template.",
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
    "Time of a prediction: decoding, waiting, networks, encoding.",
    ["stylise"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=None,
)
_FINAL = (JobState.SUCCEEDED, JobState.CANCELLED)
_METHODS = {method.value for method in HTTPMethod}


class JobCollector(Collector):
    """Jobs by state, ages of the queues, and durations of stages of jobs that ended for good."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        return []  # registering must not need the database

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("stylefilter_jobs", "Jobs by state.", labels=["state"])
        age = GaugeMetricFamily(
            "stylefilter_queue_age_seconds",
            "How long a worker could have taken the job that waits longest, by lane; 0: none.",
            labels=["lane"],
        )
        held = GaugeMetricFamily(
            "stylefilter_jobs_held", "Jobs that a worker holds, by lane.", labels=["lane"]
        )
        stages = SummaryMetricFamily(
            "stylefilter_stage_duration_seconds",
            "Finished stages of jobs that succeeded or were cancelled.",
            labels=["stage"],
        )
        with self._database.reading() as session:
            by_state = select(Job.state, func.count()).group_by(Job.state)
            counts = dict(session.execute(by_state).all())
            ages = _queue_ages(session)
            by_lane = select(Job.lane, func.count()).where(
                Job.lease_until.is_not(None),  # as its index says
                Job.state.in_(ACTIVE),
            )
            holding = dict(session.execute(by_lane.group_by(Job.lane)).all())
            durations = session.execute(
                select(JobStage.stage, func.count(), func.sum(JobStage.seconds))
                .join(Job)
                # A counter must not fall, and a job that failed may be retried.
                .where(JobStage.finished.is_(True), Job.state.in_(_FINAL))
                .group_by(JobStage.stage)
            ).all()
        for state in JobState:
            jobs.add_metric([state], counts.get(state, 0))
        for lane in Lane:
            age.add_metric([lane], ages.get(lane, 0))
            held.add_metric([lane], holding.get(lane, 0))
        for stage, count, seconds in durations:
            stages.add_metric([stage], count, seconds)
        yield from (jobs, age, held, stages)


class WebhookCollector(Collector):
    """What waits to be delivered."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        # The first event is the oldest: no need to look at the others.
        first = select(func.min(WebhookDelivery.event_id)).scalar_subquery()
        oldest = select(JobEvent.created_at).where(JobEvent.id == first)
        waiting = select(func.count()).select_from(WebhookDelivery).scalar_subquery()
        query = select(waiting, oldest.scalar_subquery(), now_plus())
        with self._database.reading() as session:
            count, since, now = session.execute(query).one()
        yield GaugeMetricFamily(
            "stylefilter_webhooks_waiting", "Webhooks to be delivered yet.", value=count
        )
        yield GaugeMetricFamily(
            "stylefilter_webhook_age_seconds",
            "Age of the oldest webhook to be delivered yet; 0 without one.",
            value=(now - since).total_seconds() if since else 0,
        )


def _queue_ages(session: Session) -> dict[str, float]:
    """Of each lane with a job that can be taken: the seconds since one could be."""
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
    # A job from before there were events has none.
    began = func.coalesce(Job.not_before, told.scalar_subquery(), Job.created_at)
    ready = select(Job.lane, began.label("began"), met.scalar_subquery().label("met"))
    # Without the word PostgreSQL looks for each of these times twice.
    each = ready.where(transitions.claimable()).cte("each").prefix_with("MATERIALIZED")
    since = case((each.c.met > each.c.began, each.c.met), else_=each.c.began)
    oldest = select(each.c.lane, func.min(since), now_plus()).group_by(each.c.lane)
    return {lane: (now - since).total_seconds() for lane, since, now in session.execute(oldest)}


def make_registry(database: Database) -> CollectorRegistry:
    registry = CollectorRegistry()
    for metric in (REQUEST_SECONDS, REQUESTS, PREDICT_SECONDS, TRIES):
        registry.register(metric)
    registry.register(JobCollector(database))
    registry.register(WebhookCollector(database))
    ProcessCollector(registry=registry)
    return registry


class RequestMetrics:
    """ASGI middleware: counts and times requests by route template, never by path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            # A client may send any word as the method; it must not grow the list of series.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            REQUEST_SECONDS.labels(method, route).observe(perf_counter() - started)
            REQUESTS.labels(method, route, str(status)).inc()
